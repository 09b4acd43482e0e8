//! What Goma can do and this gateway cannot yet: one line each, to be deleted as features land.
//!
//! What would weaken protection or silently drop a service refuses the configuration; the rest is a warning. Kinds of
//! middlewares are not judged here: the chain knows them.

use super::document::Config;
use super::place::Place;
use super::problem::Report;

/// What a use of a feature means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Refuses the configuration.
    Refuse,
    /// Has no effect, which is said.
    Warn,
}

/// A feature: where a configuration uses it, what that means, and a word to the operator.
type Feature = (fn(&Config) -> Vec<Place>, Use, &'static str);

const FEATURES: [Feature; 16] = [
    (
        |c| given(c.gateway.providers.http.as_ref().is_some_and(|p| p.enabled), &c.gateway.at, "providers.http"),
        Use::Refuse,
        "",
    ),
    (
        |c| given(c.gateway.providers.git.as_ref().is_some_and(|p| p.enabled), &c.gateway.at, "providers.git"),
        Use::Refuse,
        "",
    ),
    (|c| issuers(c, true), Use::Refuse, ""),
    (|c| issuers(c, false), Use::Warn, "no certificates are issued"),
    (
        |c| {
            given(
                !c.gateway.entry_points.pass_through.forwards.is_empty(),
                &c.gateway.at,
                "entryPoints.passThrough.forwards",
            )
        },
        Use::Refuse,
        "",
    ),
    (
        |c| given(!c.gateway.tls.client_auth.client_ca.is_empty(), &c.gateway.at, "tls.clientAuth.clientCA"),
        Use::Refuse,
        "",
    ),
    (
        |c| each_route(c, "security.enableExploitProtection", |r| r.enabled && r.security.exploit_protection),
        Use::Refuse,
        "",
    ),
    (
        |c| given(!c.gateway.tls.certificates.is_empty(), &c.gateway.at, "tls.certificates"),
        Use::Warn,
        "webSecure is not bound",
    ),
    (
        |c| given(!c.gateway.tls.certs_dir.is_empty(), &c.gateway.at, "tls.certsDir"),
        Use::Warn,
        "webSecure is not bound",
    ),
    (|c| given(c.gateway.tls.default.is_some(), &c.gateway.at, "tls.default"), Use::Warn, "webSecure is not bound"),
    (|c| each_route(c, "tls.certificate", |r| r.tls.certificate.is_some()), Use::Warn, "webSecure is not bound"),
    (|c| given(c.gateway.analytics.enabled, &c.gateway.at, "analytics"), Use::Warn, "no events are sent"),
    (
        |c| given(!c.gateway.geoip.database.is_empty(), &c.gateway.at, "geoip.database"),
        Use::Warn,
        "no country is looked up",
    ),
    (|c| given(!c.gateway.redis.addr.is_empty(), &c.gateway.at, "redis"), Use::Warn, "nothing is kept in Redis"),
    (cors, Use::Warn, "no CORS headers are sent"),
    (interceptors, Use::Warn, "errors are passed on as they are"),
];

/// Reports each use of something that is not supported yet.
pub fn check(config: &Config, report: &mut Report) {
    for (used, meaning, effect) in FEATURES {
        for at in used(config) {
            report.add(match meaning {
                Use::Refuse => at.error("is not supported yet", "remove it"),
                Use::Warn => at.warning("is not supported yet", effect),
            });
        }
    }
    if !config.plugins.path.is_empty() {
        let at = config.at.child("plugins").child("path");
        report.add(at.warning("Go plugins cannot be run here", "a route that uses one is refused"));
    }
}

fn given(used: bool, at: &Place, path: &str) -> Vec<Place> {
    if used { vec![below(at, path)] } else { Vec::new() }
}

fn below(at: &Place, path: &str) -> Place {
    path.split('.').fold(at.clone(), |place, key| place.child(key))
}

fn each_route(config: &Config, path: &str, used: fn(&super::Route) -> bool) -> Vec<Place> {
    config.routes.iter().filter(|route| used(route)).map(|route| below(&route.at, path)).collect()
}

/// The issuers of certificates that have been set up, or those that are only mentioned, as in Goma's sample.
fn issuers(config: &Config, set_up: bool) -> Vec<Place> {
    let section = config.at.child("certManager");
    let named = section.child("providers");
    let providers = config.cert_manager.providers.iter();
    let fits = providers.filter(|(_, provider)| provider.is_set_up() == set_up);
    fits.map(|(name, _)| if named.is_present() { named.child(name) } else { section.clone() }).collect()
}

fn cors(config: &Config) -> Vec<Place> {
    let mut places = given(config.gateway.cors.enabled && !config.gateway.cors.is_empty(), &config.gateway.at, "cors");
    places.extend(each_route(config, "cors", |route| route.cors.enabled && !route.cors.is_empty()));
    places
}

fn interceptors(config: &Config) -> Vec<Place> {
    let used = !config.gateway.error_interceptor.errors.is_empty();
    let mut places = given(used, &config.gateway.at, "errorInterceptor");
    places.extend(each_route(config, "errorInterceptor", |route| !route.error_interceptor.errors.is_empty()));
    places
}
