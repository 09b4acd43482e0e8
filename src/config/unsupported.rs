//! What Goma can do and this gateway cannot yet: one line each, to be deleted as features land.
//!
//! What would weaken protection or silently drop a service refuses the configuration; the rest is a warning. Kinds of
//! middlewares are not judged here: the chain knows them.

use super::document::Config;
use super::networking::Transport;
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

const FEATURES: [Feature; 7] = [
    (
        |c| {
            let most = c.gateway.transport.max_idle_conns_per_host;
            let asked = most != Transport::default().max_idle_conns_per_host;
            given(asked, &c.gateway.at, "networking.transport.maxIdleConnsPerHost")
        },
        Use::Warn,
        "unused connections are bounded by maxIdleConns, for all backends together",
    ),
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
    (|c| given(c.gateway.analytics.enabled, &c.gateway.at, "analytics"), Use::Warn, "no events are sent"),
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

/// The issuers of certificates that have been set up, or those that are only mentioned, as in Goma's sample.
fn issuers(config: &Config, set_up: bool) -> Vec<Place> {
    let section = config.at.child("certManager");
    let named = section.child("providers");
    let providers = config.cert_manager.providers.iter();
    let fits = providers.filter(|(_, provider)| provider.is_set_up() == set_up);
    fits.map(|(name, _)| if named.is_present() { named.child(name) } else { section.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn what_would_weaken_protection_or_drop_a_service_is_refused_and_the_rest_is_named() {
        let refused = "is not supported yet; remove it";
        let table = [
            ("providers: {http: {enabled: true}}", "error: ", "gateway.providers.http", refused),
            ("providers: {git: {enabled: true}}", "error: ", "gateway.providers.git", refused),
            (
                "entryPoints: {passThrough: {forwards: [{port: 1}]}}",
                "error: ",
                "gateway.entryPoints.passThrough.forwards",
                refused,
            ),
            (
                "analytics: {enabled: true}",
                "warning: ",
                "gateway.analytics",
                "is not supported yet; no events are sent",
            ),
            (
                "networking: {transport: {maxIdleConns: 9, maxIdleConnsPerHost: 3}}",
                "warning: ",
                "gateway.networking.transport.maxIdleConnsPerHost",
                "is not supported yet; unused connections are bounded by maxIdleConns, for all backends together",
            ),
        ];
        for (section, severity, key, words) in table {
            let yaml = format!("gateway:\n  {section}\n  routes: [{{name: a, path: /, target: 'http://a'}}]\n");
            assert_eq!(findings(&yaml), format!("{severity}goma.yml:2: {key}: {words}"));
        }
        for unused in ["providers: {http: {enabled: false}, git: {}}", "cors: {enabled: true}", "analytics: {}"] {
            let yaml = format!("gateway:\n  {unused}\n  routes: [{{name: a, path: /, target: 'http://a'}}]\n");
            assert_eq!(findings(&yaml), "", "{unused}");
        }
    }

    #[test]
    fn an_issuer_that_has_been_set_up_is_refused() {
        let table = [
            ("certManager: {}", ""),
            (
                "certManager: {provider: acme, acme: {email: ''}}",
                "warning: goma.yml:1: certManager: is not supported yet; no certificates are issued",
            ),
            ("certManager: {acme: {email: a@b}}", "error: goma.yml:1: certManager: is not supported yet; remove it"),
            (
                "certificateManager: {providers: {v: {type: vault, vault: {address: x}}}}",
                "error: goma.yml:1: certManager.providers.v: is not supported yet; remove it\nwarning: goma.yml:1: certificateManager: is an older key; write certManager",
            ),
        ];
        for (section, expected) in table {
            let yaml = format!("{section}\ngateway: {{routes: [{{name: a, path: /, target: 'http://a'}}]}}\n");
            assert_eq!(findings(&yaml), expected, "{section}");
        }
    }
}
