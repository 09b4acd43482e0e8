//! Definitions of middlewares, looked up by name and built for each route.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Env, Gateway, Middleware as Definition, Place, Problem, Report, Route, expand};
use crate::middleware::chain::Listed;
use crate::middleware::cors::Cors;
use crate::middleware::error_interceptor::{ErrorInterceptor, Interceptor};
use crate::middleware::{Chain, Kind, Part, PathRules, Scope, Tools, at_odds, bots, exploit};

/// All definitions of a configuration, ready to be built.
pub struct Chains<'a> {
    /// By name; `None` for those whose definition is wrong, which is reported where they are defined.
    definitions: HashMap<&'a str, Option<Ready<'a>>>,
    shared: Shared<'a>,
}

/// What all definitions are built with.
#[derive(Clone, Copy)]
struct Shared<'a> {
    env: &'a Env,
    tools: &'a Tools,
    geo_database: &'a str,
}

struct Ready<'a> {
    definition: &'a Definition,
    kind: &'static Kind,
    paths: Arc<PathRules>,
    /// The claim that it reads.
    claim: Option<String>,
    /// The first one built. It lives until the routes have theirs, so that what they share by use (a set of keys that is being
    /// fetched) is not begun twice.
    trial: Option<Part>,
}

impl<'a> Chains<'a> {
    /// Finds the kind of every definition, compiles its `paths`, and builds it once, so that a mistake in one that no route
    /// uses is found as well.
    pub fn new(config: &'a Config, env: &'a Env, tools: &'a Tools, report: &mut Report) -> Chains<'a> {
        let shared = Shared { env, tools, geo_database: config.gateway.geoip.database.trim() };
        let mut chains = Chains { definitions: HashMap::new(), shared };
        chains.gateway_sections(&config.gateway, report);
        for definition in &config.middlewares {
            let ready = Ready::new(definition, shared, report);
            chains.definitions.insert(&definition.name, ready);
        }
        report.extend(at_odds(&config.middlewares, tools));
        chains
    }

    /// The chain of a route; `None` when one of its middlewares cannot be had, which is reported.
    pub fn route(&self, route: &Route, gateway: &Gateway, report: &mut Report) -> Option<Chain> {
        let place = Anywhere {
            name: &route.name,
            path: &route.path,
            target: route.target.as_deref(),
            claims: &self.claims(&route.middlewares),
        };
        let cors = cors(route, gateway, report);
        let errors = self.errors(route, gateway, report);
        let first = built_in(route, self.shared.tools);
        let mut chain = self.chain(first, &route.middlewares, &route.at.child("middlewares"), &place, report)?;
        chain.shell.set_cors(cors.ok()?);
        chain.shell.set_older_errors(errors.ok()?);
        Some(chain)
    }

    /// The older `errorInterceptor` section of a route, the gateway's behind it.
    fn errors(&self, route: &Route, gateway: &Gateway, report: &mut Report) -> Result<Option<Interceptor>, ()> {
        let (section, of_gateway) = (&route.error_interceptor, &gateway.error_interceptor);
        let at = route.at.child("errorInterceptor");
        report.extend(ErrorInterceptor::older_doubts(section, &at, of_gateway));
        ErrorInterceptor::joined(section, &at, of_gateway, &self.shared.tools.files)
            .map_err(|problems| report.extend(problems))
    }

    /// The gateway's sections are judged once, not for every route that takes them.
    fn gateway_sections(&self, gateway: &Gateway, report: &mut Report) {
        let at = gateway.at.child("errorInterceptor");
        report.extend(ErrorInterceptor::older(&gateway.error_interceptor, &at, &self.shared.tools.files));
        let at = gateway.at.child("cors");
        report.extend(Cors::doubts(&gateway.cors, &at));
        report.extend(Cors::older(&gateway.cors, &[], &at).err().unwrap_or_default());
    }

    /// The chain before one of the gateway's own endpoints.
    pub fn endpoint(&self, names: &[String], place: &Place, report: &mut Report) -> Arc<Chain> {
        let anywhere = Anywhere { name: "", path: "/", target: None, claims: &self.claims(names) };
        Arc::new(self.chain(Vec::new(), names, place, &anywhere, report).unwrap_or_default())
    }

    /// Claims that middlewares of these names read.
    fn claims(&self, names: &[String]) -> Vec<&str> {
        let ready = names.iter().filter_map(|name| self.definitions.get(name.as_str())?.as_ref());
        ready.filter_map(|ready| ready.claim.as_deref()).collect()
    }

    fn chain(
        &self,
        mut parts: Vec<(Listed, &'static str, Part)>,
        names: &[String],
        place: &Place,
        at: &Anywhere<'_>,
        report: &mut Report,
    ) -> Option<Chain> {
        let mut whole = true;
        for (place_in_list, name) in names.iter().enumerate() {
            let nth = names[..place_in_list].iter().filter(|before| *before == name).count();
            match self.definitions.get(name.as_str()) {
                Some(Some(ready)) => match ready.build(at, nth, self.shared) {
                    Ok((part, _)) => parts.push((ready.listed(), ready.kind.names[0], part)),
                    Err(_) => whole = false,
                },
                Some(None) => whole = false,
                None => {
                    whole = false;
                    report.extend(self.undefined(name, place));
                }
            }
        }
        whole.then(|| Chain::new(parts))
    }

    /// Nothing for a name that the list does not have itself: it is one of the gateway's defaults, reported where those are.
    fn undefined(&self, name: &str, place: &Place) -> Option<Problem> {
        let listed = place.item_reading(name)?;
        let known: Vec<&str> = self.definitions.keys().copied().collect();
        let remedy = match crate::config::nearest(name, &known) {
            Some((near, _)) => format!("did you mean `{near}`?"),
            None => "define it under `middlewares`, or remove it here".to_owned(),
        };
        Some(listed.error(format!("middleware `{name}` is not defined"), remedy))
    }
}

/// Guards that a route switches on by itself; they come before its middlewares. Spec middlewares §3.
fn built_in(route: &Route, tools: &Tools) -> Vec<(Listed, &'static str, Part)> {
    let mut parts = Vec::new();
    if route.security.bot_detection {
        let kind = "botDetection";
        let listed = Listed { name: "security.enableBotDetection".to_owned(), kind: kind.to_owned() };
        parts.push((listed, kind, Part::Step(bots::route_guard(tools, &route.name))));
    }
    if route.security.exploit_protection {
        let kind = "exploitProtection";
        let listed = Listed { name: "security.enableExploitProtection".to_owned(), kind: kind.to_owned() };
        parts.push((listed, kind, Part::Step(exploit::route_guard(tools, &route.name))));
    }
    parts
}

/// The older `cors` section of a route; an empty one takes the gateway's.
fn cors(route: &Route, gateway: &Gateway, report: &mut Report) -> Result<Option<Cors>, ()> {
    if !route.cors.enabled {
        return Ok(None);
    }
    if route.cors.is_empty() {
        return Cors::older(&gateway.cors, &route.methods, &Place::default()).map_err(drop);
    }
    let at = route.at.child("cors");
    report.extend(Cors::doubts(&route.cors, &at));
    Cors::older(&route.cors, &route.methods, &at).map_err(|problems| report.extend(problems))
}

/// The route that a part is built for.
struct Anywhere<'a> {
    name: &'a str,
    path: &'a str,
    target: Option<&'a str>,
    claims: &'a [&'a str],
}

impl<'a> Ready<'a> {
    fn new(definition: &'a Definition, shared: Shared<'_>, report: &mut Report) -> Option<Ready<'a>> {
        let kind = Kind::named(&definition.kind, &definition.at).map_err(|problem| report.add(problem));
        let paths = PathRules::compile(&definition.paths, &definition.at).map_err(|problems| report.extend(problems));
        let kind = kind.ok()?;
        let claim = kind.claim(definition);
        let mut ready = Ready { definition, kind, paths: Arc::new(paths.ok()?), claim, trial: None };
        match ready.build(&Anywhere { name: "", path: "/", target: None, claims: &[] }, 0, shared) {
            Ok((part, warnings)) => {
                report.extend(warnings);
                ready.trial = Some(part);
                Some(ready)
            }
            Err(problems) => {
                report.extend(problems);
                None
            }
        }
    }

    fn listed(&self) -> Listed {
        Listed { name: self.definition.name.clone(), kind: self.definition.kind.clone() }
    }

    fn build(&self, at: &Anywhere<'_>, nth: usize, shared: Shared<'_>) -> Result<(Part, Vec<Problem>), Vec<Problem>> {
        let scope = Scope {
            place: &self.definition.at,
            name: &self.definition.name,
            nth,
            route: at.name,
            route_path: at.path,
            route_target: at.target,
            paths: self.paths.clone(),
            expand: &|text| expand::value(text, shared.env),
            geo_database: shared.geo_database,
            claims: at.claims,
            tools: shared.tools,
        };
        self.kind.build(self.definition, &scope)
    }
}
