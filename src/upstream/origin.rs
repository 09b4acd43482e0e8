//! One place to connect to: scheme, address, TLS identity and protocol.
//!
//! This is what routes share. Two routes with the same origin use the same connections, see each other's failed
//! checks and count requests together; a reload finds the origin again by its key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::direct::Kept;
use super::endpoint::{Host, Scheme};
use super::names::{Name, Unresolved};
use super::tls::{TlsDigest, TlsIdentity};

/// Identity of an [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OriginKey {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
    /// `None` without TLS.
    pub tls: Option<TlsDigest>,
    /// Whether HTTP/2 is offered in the TLS handshake.
    pub http2: bool,
}

/// One place to connect to, with the counters that belong to it.
pub(super) struct Origin {
    pub key: OriginKey,
    pub tls: Option<Arc<TlsIdentity>>,
    /// Requests that were given to this origin and have not ended.
    pub in_flight: AtomicUsize,
    /// Health checks that say "down" at the moment.
    pub failed_checks: AtomicUsize,
    /// Connections that could not be made, since the process started.
    pub connect_failures: AtomicU64,
    /// Connections that wait for a request that goes without Pingora.
    pub kept: Arc<Kept>,
    place: Place,
    turn: AtomicUsize,
    avoided: ArcSwapOption<Vec<Avoided>>,
}

enum Place {
    At(IpAddr),
    Named(Arc<Name>),
}

/// An address to which the last connection failed.
#[derive(Clone)]
struct Avoided {
    ip: IpAddr,
    until: Instant,
    failures: u32,
}

impl Origin {
    /// `name` turns the host into what is resolved in the background.
    pub fn new(
        key: OriginKey,
        tls: Option<Arc<TlsIdentity>>,
        kept: Arc<Kept>,
        name: impl FnOnce(&str) -> Arc<Name>,
    ) -> Self {
        let place = match &key.host {
            Host::Ip(ip) => Place::At(*ip),
            Host::Name(host) => Place::Named(name(host)),
        };
        Self {
            key,
            tls,
            in_flight: AtomicUsize::new(0),
            failed_checks: AtomicUsize::new(0),
            connect_failures: AtomicU64::new(0),
            kept,
            place,
            turn: AtomicUsize::new(0),
            avoided: ArcSwapOption::empty(),
        }
    }

    /// The address for the next attempt; waits only when the name was never resolved.
    ///
    /// Addresses take turns, IPv4 before IPv6: many machines have IPv6 addresses in their name service and no
    /// way to them. An address that failed rests for a while, longer each time.
    pub async fn address(&self, limit: Duration) -> Result<SocketAddr, Unresolved> {
        let ip = match &self.place {
            Place::At(ip) => *ip,
            Place::Named(name) => match name.with_known(|ips| self.choose(ips)) {
                Some(ip) => ip,
                None => self.choose(&name.addresses(limit).await?),
            },
        };
        Ok(SocketAddr::new(ip, self.key.port))
    }

    /// Every address, the ones that requests prefer first.
    pub async fn addresses(&self, limit: Duration) -> Result<Vec<SocketAddr>, Unresolved> {
        let ips = match &self.place {
            Place::At(ip) => vec![*ip],
            Place::Named(name) => name.addresses(limit).await?.to_vec(),
        };
        let with_port = |ip| SocketAddr::new(ip, self.key.port);
        Ok(ips.into_iter().map(with_port).collect())
    }

    /// How many addresses are known; 1 while none is.
    pub fn breadth(&self) -> usize {
        match &self.place {
            Place::At(_) => 1,
            Place::Named(name) => name.with_known(<[IpAddr]>::len).unwrap_or(1),
        }
    }

    /// A connection to this address failed: others go first for a while.
    pub fn avoid(&self, ip: IpAddr) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
        if self.breadth() < 2 {
            return;
        }
        let now = Instant::now();
        self.avoided.rcu(|avoided| {
            let mut list = avoided.as_deref().cloned().unwrap_or_default();
            let failures = list.iter().find(|a| a.ip == ip).map_or(1, |a| a.failures + 1);
            list.retain(|a| a.ip != ip && now < a.until + REST_LONGEST);
            let rest = REST_STEP.saturating_mul(1 << failures.min(8)).min(REST_LONGEST);
            list.push(Avoided { ip, until: now + rest, failures });
            Some(Arc::new(list))
        });
    }

    /// A connection to this address was made.
    pub fn welcome(&self, ip: IpAddr) {
        if self.avoided.load().is_none() {
            return;
        }
        self.avoided.rcu(|avoided| {
            let mut list = avoided.as_deref().cloned().unwrap_or_default();
            list.retain(|a| a.ip != ip);
            (!list.is_empty()).then(|| Arc::new(list))
        });
    }

    fn choose(&self, ips: &[IpAddr]) -> IpAddr {
        if let [only] = ips {
            return *only;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let avoided = self.avoided.load();
        let now = Instant::now();
        let rests = |ip: IpAddr| match avoided.as_deref() {
            Some(list) => list.iter().any(|a| a.ip == ip && now < a.until),
            None => false,
        };
        let (v4, v6) = ips.split_at(ips.partition_point(IpAddr::is_ipv4));
        [v4, v6]
            .into_iter()
            .flat_map(|group| (0..group.len()).map(move |i| group[turn.wrapping_add(i) % group.len()]))
            .find(|ip| !rests(*ip))
            .unwrap_or(ips[turn % ips.len()])
    }
}

const REST_STEP: Duration = Duration::from_secs(5);
const REST_LONGEST: Duration = Duration::from_secs(160);

#[cfg(test)]
pub(super) mod tests {
    use super::super::direct::Store;
    use super::*;

    pub fn key(host: Host, port: u16) -> OriginKey {
        OriginKey { scheme: Scheme::Http, host, port, tls: None, http2: true }
    }

    /// An origin at a literal address.
    pub fn literal(address: SocketAddr) -> Origin {
        Origin::new(key(Host::Ip(address.ip()), address.port()), None, Store::new(0, None).place(), |_| unreachable!())
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn named(addresses: &[IpAddr]) -> Origin {
        let name = Arc::new(Name::fixed("app", addresses));
        Origin::new(key(Host::Name("app".into()), 80), None, Store::new(0, None).place(), |_| name)
    }

    #[test]
    fn addresses_take_turns_and_ipv6_waits() {
        let all = ips(&["10.0.0.1", "10.0.0.2", "::1"]);
        let origin = named(&all);
        let chosen: Vec<_> = (0..4).map(|_| origin.choose(&all)).collect();
        assert_eq!(chosen, ips(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    }

    #[test]
    fn an_address_that_failed_rests_until_it_is_welcome_again() {
        let all = ips(&["10.0.0.1", "10.0.0.2", "::1"]);
        let origin = named(&all);
        origin.avoid(all[0]);
        assert!((0..4).all(|_| origin.choose(&all) == all[1]));
        origin.avoid(all[1]);
        assert!((0..4).all(|_| origin.choose(&all) == all[2]));
        origin.avoid(all[2]);
        let chosen: Vec<_> = (0..3).map(|_| origin.choose(&all)).collect();
        assert!(all.iter().all(|ip| chosen.contains(ip)), "{chosen:?}");
        origin.welcome(all[0]);
        assert!((0..4).all(|_| origin.choose(&all) == all[0]));
        assert_eq!(origin.connect_failures.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_single_address_is_never_avoided() {
        let all = ips(&["10.0.0.1"]);
        let origin = named(&all);
        origin.avoid(all[0]);
        assert!(origin.avoided.load().is_none());
        assert_eq!(origin.choose(&all), all[0]);
    }
}
