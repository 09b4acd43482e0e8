//! Definitions of middlewares, looked up by name and built for each route.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Env, Middleware as Definition, Place, Problem, Report, Route, expand};
use crate::middleware::{Chain, Kind, Part, PathRules, Scope};

/// All definitions of a configuration, ready to be built.
pub struct Chains<'a> {
    /// By name; `None` for those whose definition is wrong, which is reported where they are defined.
    definitions: HashMap<&'a str, Option<Ready<'a>>>,
    env: &'a Env,
}

struct Ready<'a> {
    definition: &'a Definition,
    kind: &'static Kind,
    paths: Arc<PathRules>,
}

impl<'a> Chains<'a> {
    /// Finds the kind of every definition, compiles its `paths`, and builds it once, so that a mistake in one that no route
    /// uses is found as well.
    pub fn new(config: &'a Config, env: &'a Env, report: &mut Report) -> Chains<'a> {
        let mut chains = Chains { definitions: HashMap::new(), env };
        for definition in &config.middlewares {
            let ready = Ready::new(definition, env, report);
            chains.definitions.insert(&definition.name, ready);
        }
        chains
    }

    /// The chain of a route; `None` when one of its middlewares cannot be had, which is reported.
    pub fn route(&self, route: &Route, report: &mut Report) -> Option<Chain> {
        let place = Anywhere { name: &route.name, path: &route.path, target: route.target.as_deref() };
        self.chain(&route.middlewares, &route.at.child("middlewares"), &place, report)
    }

    /// The chain before one of the gateway's own endpoints.
    pub fn endpoint(&self, names: &[String], place: &Place, report: &mut Report) -> Arc<Chain> {
        let anywhere = Anywhere { name: "", path: "/", target: None };
        Arc::new(self.chain(names, place, &anywhere, report).unwrap_or_default())
    }

    /// Names and kinds, as far as they are defined.
    pub fn names(&self, names: &[String]) -> Vec<(String, String)> {
        let ready = |name: &String| self.definitions.get(name.as_str()).and_then(Option::as_ref);
        let kind = |name| ready(name).map_or("?", |ready| &ready.definition.kind);
        names.iter().map(|name| (name.clone(), kind(name).to_owned())).collect()
    }

    fn chain(&self, names: &[String], place: &Place, at: &Anywhere<'_>, report: &mut Report) -> Option<Chain> {
        let mut parts = Vec::new();
        let mut whole = true;
        for name in names {
            match self.definitions.get(name.as_str()) {
                Some(Some(ready)) => match ready.build(at, self.env) {
                    Ok((part, _)) => parts.push((ready.kind.names[0], part)),
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

/// The route that a part is built for.
struct Anywhere<'a> {
    name: &'a str,
    path: &'a str,
    target: Option<&'a str>,
}

impl<'a> Ready<'a> {
    fn new(definition: &'a Definition, env: &Env, report: &mut Report) -> Option<Ready<'a>> {
        let kind = Kind::named(&definition.kind, &definition.at).map_err(|problem| report.add(problem));
        let paths = PathRules::compile(&definition.paths, &definition.at).map_err(|problems| report.extend(problems));
        let ready = Ready { definition, kind: kind.ok()?, paths: Arc::new(paths.ok()?) };
        match ready.build(&Anywhere { name: "", path: "/", target: None }, env) {
            Ok((_, warnings)) => {
                report.extend(warnings);
                Some(ready)
            }
            Err(problems) => {
                report.extend(problems);
                None
            }
        }
    }

    fn build(&self, at: &Anywhere<'_>, env: &Env) -> Result<(Part, Vec<Problem>), Vec<Problem>> {
        let scope = Scope {
            place: &self.definition.at,
            route: at.name,
            route_path: at.path,
            route_target: at.target,
            paths: self.paths.clone(),
            expand: &|text| expand::value(text, env),
        };
        self.kind.build(self.definition, &scope)
    }
}
