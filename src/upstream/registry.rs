//! What routes share, by identity.
//!
//! The registry lives as long as the process and holds everything weakly: an origin, a name, a check or a turn
//! counter lives while some compiled upstream uses it. A new snapshot is compiled while the old one still lives, so
//! what both name is one and the same, and what only a refused configuration named is gone with it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::backend::Backend;
use super::balance::{Hedges, Parts, Retries, Upstream};
use super::budget::Budget;
use super::direct::Store;
use super::endpoint::{Endpoint, Scheme};
use super::guard::{self, Guard, GuardSettings, Witness};
use super::health::{Check, Schedule};
use super::lookup::{DnsSettings, Lookup};
use super::names::Names;
use super::origin::{Origin, OriginKey};
use super::peer::PeerTemplate;
use super::probe::{Means, Probe};
use super::settings::{BackendSettings, HealthSettings, SettingError, Settings, Tls, Transport};
use super::slots::Slots;
use super::sticky::Cookie;
use super::tls::{TlsDigest, TlsIdentity, digest};

/// Backends of the whole process. One a process; see the module's first words.
pub struct Registry {
    names: Arc<Names>,
    means: Arc<Means>,
    clear_on_reload: bool,
    handle: Option<Handle>,
    permits: Arc<Semaphore>,
    kept: Arc<Store>,
    epoch: Arc<AtomicU64>,
    /// Signs the cookies of routes that have no key of their own.
    cookie_key: [u8; 32],
    witness: Witness,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    identities: HashMap<TlsDigest, Weak<TlsIdentity>>,
    origins: HashMap<OriginKey, Weak<Origin>>,
    templates: HashMap<(OriginKey, Transport), Weak<PeerTemplate>>,
    checks: HashMap<(OriginKey, Endpoint, HealthSettings), Weak<Check>>,
    turns: HashMap<(String, Vec<Endpoint>), Weak<AtomicUsize>>,
    guards: HashMap<(String, OriginKey, Endpoint, GuardSettings), Weak<Guard>>,
    /// By route, and whether it is that for hedges.
    budgets: HashMap<(String, bool), Weak<Budget>>,
    bounds: HashMap<(OriginKey, usize), Weak<Slots>>,
}

impl Registry {
    /// `handle` runs look-ups and health checks; without one nothing runs, which is enough to check a
    /// configuration. At most `kept` connections to backends wait for a request that goes without Pingora.
    pub fn new(dns: DnsSettings, kept: usize, handle: Option<Handle>) -> Self {
        let clear_on_reload = dns.clear_on_reload;
        let names = Arc::new(Names::new(Lookup::new(dns), handle.clone()));
        Self {
            means: Arc::new(Means::new(names.clone())),
            names,
            clear_on_reload,
            kept: Store::new(kept, handle.as_ref()),
            handle,
            permits: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            epoch: Arc::default(),
            cookie_key: rand::random(),
            witness: Arc::new(|_, _, _| {}),
            known: Mutex::default(),
        }
    }

    /// Tells this one of every backend that is left out or comes back.
    pub fn witnessed(self, witness: Witness) -> Self {
        Self { witness, ..self }
    }

    /// Compiles the backends of a route, with warnings for the operator.
    ///
    /// Starts what is new (look-ups, checks) and waits for nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn upstream(&self, settings: &Settings) -> Result<(Arc<Upstream>, Vec<String>), Vec<SettingError>> {
        let mut errors = Vec::new();
        let endpoints = endpoints(settings, &mut errors);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = known.identity(settings, &endpoints, &mut errors);
        let (Some(tls), true) = (tls, errors.is_empty()) else {
            return Err(errors);
        };
        let turn = (settings.name.clone(), endpoints.clone());
        let turn = shared(&mut known.turns, turn, |_| AtomicUsize::new(0));
        let warnings = warnings(settings, &endpoints);
        // Backends that a route begins with have nobody to take the load while they start slowly.
        let fresh = known.guards.iter().any(|((route, ..), guard)| *route == settings.name && guard.strong_count() > 0);
        let backends: Vec<Arc<Backend>> = settings
            .backends
            .iter()
            .zip(endpoints)
            .map(|(backend, endpoint)| {
                let backend = self.backend(&mut known, settings, &tls, backend, endpoint, fresh);
                Arc::new(backend)
            })
            .collect();
        let names = backends.iter().map(|backend: &Arc<Backend>| backend.name());
        let cookie = settings.balance.sticky.as_ref();
        let cookie = cookie.map(|sticky| Cookie::new(sticky, &self.cookie_key, &settings.name, names));
        let mut budget = |hedges| shared(&mut known.budgets, (settings.name.clone(), hedges), |_| Budget::new());
        let retry = settings.retry.clone().map(|policy| Retries { policy, budget: budget(false) });
        let hedge = settings.hedge.map(|hedge| Hedges { hedge, budget: budget(true) });
        let parts = Parts {
            name: settings.name.clone(),
            balance: settings.balance.clone(),
            cookie,
            retry,
            hedge,
            turn,
            epoch: self.epoch.clone(),
        };
        Ok((Arc::new(Upstream::new(backends, parts)), warnings))
    }

    /// To be called after a snapshot took over: forgets what no upstream uses any more, and asks for all names
    /// again when `clearOnReload` says so.
    pub fn sweep(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.identities.retain(|_, kept| kept.strong_count() > 0);
        known.origins.retain(|_, kept| kept.strong_count() > 0);
        known.templates.retain(|_, kept| kept.strong_count() > 0);
        known.checks.retain(|_, kept| kept.strong_count() > 0);
        known.turns.retain(|_, kept| kept.strong_count() > 0);
        known.guards.retain(|_, kept| kept.strong_count() > 0);
        known.budgets.retain(|_, kept| kept.strong_count() > 0);
        known.bounds.retain(|_, kept| kept.strong_count() > 0);
        drop(known);
        self.names.sweep();
        if self.clear_on_reload {
            self.names.refresh();
        }
    }

    fn backend(
        &self,
        known: &mut Known,
        settings: &Settings,
        tls: &Arc<TlsIdentity>,
        backend: &BackendSettings,
        endpoint: Endpoint,
        fresh: bool,
    ) -> Backend {
        let key = origin_key(&endpoint, tls, &settings.transport);
        let origin = shared(&mut known.origins, key.clone(), |key| {
            let identity = key.tls.is_some().then(|| tls.clone());
            Origin::new(key.clone(), identity, self.kept.place(), |host| self.names.name(host))
        });
        let transport = settings.transport.clone();
        let guard = (!settings.guard.is_idle()).then(|| {
            let identity = (settings.name.clone(), key.clone(), endpoint.clone(), settings.guard.clone());
            shared(&mut known.guards, identity, |(route, _, endpoint, settings)| {
                let means = guard::Means {
                    epoch: self.epoch.clone(),
                    witness: self.witness.clone(),
                    handle: self.handle.clone(),
                };
                Guard::new(route, &endpoint.to_string(), settings.clone(), fresh, means)
            })
        });
        // Connections of HTTP/2 without TLS carry many requests: there are few of them anyway.
        let bound = settings.origin_bound.filter(|_| endpoint.scheme != Scheme::H2c);
        let bound = bound.map(|limit| shared(&mut known.bounds, (key.clone(), limit), |(_, limit)| Slots::new(*limit)));
        let template = shared(&mut known.templates, (key, transport), |(key, transport)| {
            PeerTemplate::new(key.scheme, &key.host, origin.tls.as_deref(), transport)
        });
        let health = settings.health.as_ref();
        let check = health.and_then(|health| self.check(known, health, tls, &origin, &endpoint));
        Backend {
            name: endpoint.to_string(),
            endpoint,
            origin,
            template,
            connect_timeout: settings.transport.connect_timeout,
            idle_timeout: settings.transport.idle_timeout,
            check,
            guard,
            shared: bound,
            rules: backend.matches.clone(),
            weight: backend.weight,
            exclusive: backend.exclusive,
            priority: backend.priority,
        }
    }

    fn check(
        &self,
        known: &mut Known,
        health: &HealthSettings,
        tls: &Arc<TlsIdentity>,
        origin: &Arc<Origin>,
        endpoint: &Endpoint,
    ) -> Option<Arc<Check>> {
        let url = check_url(endpoint, &health.path).ok()?;
        let mut settings = health.clone();
        settings.interval = Duration::from_secs(health.interval.as_secs()).max(LEAST_INTERVAL);
        let key = (origin.key.clone(), url, settings);
        let check = shared(&mut known.checks, key, |(key, url, settings)| {
            let probe = Probe {
                url: url.clone(),
                settings: settings.clone(),
                tls: tls.clone(),
                http2: key.http2,
                means: self.means.clone(),
            };
            let schedule = Schedule { interval: settings.interval, timeout: settings.timeout };
            let runtime = self.handle.as_ref().map(|handle| (handle, self.permits.clone()));
            let epoch = self.epoch.clone();
            let name = endpoint.to_string();
            Check::start(name, origin.clone(), Box::new(probe), schedule, epoch, runtime)
        });
        Some(check)
    }
}

impl Known {
    /// `None` when something is wrong with the certificates.
    fn identity(
        &mut self,
        settings: &Settings,
        endpoints: &[Endpoint],
        errors: &mut Vec<SettingError>,
    ) -> Option<Arc<TlsIdentity>> {
        let used = endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https);
        let plain = Tls { insecure_skip_verify: settings.tls.insecure_skip_verify, ..Tls::default() };
        let tls = if used { &settings.tls } else { &plain };
        let digest = digest(tls);
        if let Some(identity) = self.identities.get(&digest).and_then(Weak::upgrade) {
            return Some(identity);
        }
        match TlsIdentity::build(tls) {
            Ok(identity) => {
                let identity = Arc::new(identity);
                self.identities.insert(digest, Arc::downgrade(&identity));
                Some(identity)
            }
            Err(found) => {
                errors.extend(found);
                None
            }
        }
    }
}

/// What is known under the key, or what is made now.
fn shared<K: Clone + Eq + Hash, V>(known: &mut HashMap<K, Weak<V>>, key: K, make: impl FnOnce(&K) -> V) -> Arc<V> {
    if let Some(value) = known.get(&key).and_then(Weak::upgrade) {
        return value;
    }
    let value = Arc::new(make(&key));
    known.insert(key, Arc::downgrade(&value));
    value
}

fn origin_key(endpoint: &Endpoint, tls: &TlsIdentity, transport: &Transport) -> OriginKey {
    let secure = endpoint.scheme == Scheme::Https;
    OriginKey {
        scheme: endpoint.scheme,
        host: endpoint.host.clone(),
        port: endpoint.port,
        tls: secure.then_some(tls.digest),
        http2: secure && transport.http2,
    }
}

/// All endpoints when there are no errors.
fn endpoints(settings: &Settings, errors: &mut Vec<SettingError>) -> Vec<Endpoint> {
    if settings.backends.is_empty() {
        errors.push(SettingError {
            backend: None,
            field: "backends",
            message: "there is no backend".to_owned(),
            remedy: "give a target or a list of backends".to_owned(),
        });
    }
    let mut endpoints = Vec::with_capacity(settings.backends.len());
    for (index, backend) in settings.backends.iter().enumerate() {
        let parsed = Endpoint::parse(&backend.endpoint);
        let checked = parsed.map_err(|bad| ("endpoint", bad)).and_then(|endpoint| {
            if let Some(health) = &settings.health {
                check_url(&endpoint, &health.path).map_err(|bad| ("healthCheck.path", bad))?;
            }
            Ok(endpoint)
        });
        match checked {
            Ok(endpoint) => endpoints.push(endpoint),
            Err((field, bad)) => errors.push(SettingError {
                backend: Some(index),
                field,
                message: bad.message,
                remedy: bad.remedy.to_owned(),
            }),
        }
    }
    endpoints
}

/// The endpoint's text with the path behind it, as Goma joins them; it must still lead to the same place.
fn check_url(endpoint: &Endpoint, path: &str) -> Result<Endpoint, super::endpoint::BadEndpoint> {
    let mut url = Endpoint::parse(&format!("{endpoint}{path}"))?;
    if !url.same_place(endpoint) {
        return Err(super::endpoint::BadEndpoint {
            message: format!("makes {url} of the endpoint {endpoint}"),
            remedy: "start the path with a slash",
        });
    }
    url.credentials = endpoint.credentials.clone();
    Ok(url)
}

fn warnings(settings: &Settings, endpoints: &[Endpoint]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (backend, endpoint) in settings.backends.iter().zip(endpoints) {
        if backend.exclusive && backend.matches.is_empty() {
            warnings.push(format!("backend {endpoint}: exclusive has no effect without match"));
        }
        if endpoint.credentials.is_some() {
            warnings.push(format!(
                "backend {endpoint}: user and password of the endpoint are sent with health checks only"
            ));
        }
    }
    warnings
}

const LEAST_INTERVAL: Duration = Duration::from_secs(1);
const CHECKS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests;
