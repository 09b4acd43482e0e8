//! Paths on which answers to middlewares come in: the end of a login may lie anywhere on the site. They are entries of the
//! same table; several routes may share one, and the answer tells whose it is.

use std::sync::Arc;

use super::{Route, Target};
use crate::config::{Place, Problem, Route as RouteConfig};
use crate::route::{Builder, Methods, Pattern, Span};

/// Who answers on a landing.
#[derive(Clone)]
pub struct Landing {
    /// The first route that has it.
    pub first: Arc<Route>,
    /// Further ones.
    pub others: Arc<[Arc<Route>]>,
}

/// A landing in the table.
pub(super) struct Added {
    path: String,
    route: Arc<str>,
    place: Place,
}

/// A path on a host, with the routes that land there.
struct Site<'a> {
    path: &'a str,
    /// Empty for any.
    host: &'a str,
    priority: i64,
    place: Place,
    routes: Vec<Arc<Route>>,
}

/// Adds the landings of all routes to the table; returns them in their order.
pub(super) fn add(
    routes: &[(usize, Arc<Route>)],
    ordered: &[&RouteConfig],
    builder: &mut Builder<Target>,
) -> Vec<Added> {
    let mut sites: Vec<Site<'_>> = Vec::new();
    for (index, route) in routes {
        let config = ordered[*index];
        for path in route.chain.landings() {
            let any = config.hosts.is_empty().then_some("");
            let hosts = config.hosts.iter().map(String::as_str).chain(any);
            hosts.for_each(|host| join(&mut sites, path, host, route, config));
        }
    }
    share_any_host(&mut sites);
    sites.into_iter().filter_map(|site| place(site, builder)).collect()
}

fn join<'a>(sites: &mut Vec<Site<'a>>, path: &'a str, host: &'a str, route: &Arc<Route>, config: &RouteConfig) {
    match sites.iter_mut().find(|site| site.path == path && site.host.eq_ignore_ascii_case(host)) {
        Some(site) => {
            site.priority = site.priority.min(config.priority);
            site.routes.push(route.clone());
        }
        None => sites.push(Site {
            path,
            host,
            priority: config.priority,
            place: config.at.child("middlewares"),
            routes: vec![route.clone()],
        }),
    }
}

/// Routes for any host land on the named hosts of others as well.
fn share_any_host(sites: &mut [Site<'_>]) {
    let anywhere: Vec<(String, Vec<Arc<Route>>)> = sites
        .iter()
        .filter(|site| site.host.is_empty())
        .map(|site| (site.path.to_owned(), site.routes.clone()))
        .collect();
    for (path, routes) in anywhere {
        for site in sites.iter_mut().filter(|site| site.path == path && !site.host.is_empty()) {
            site.routes.extend(routes.iter().cloned());
        }
    }
}

fn place(site: Site<'_>, builder: &mut Builder<Target>) -> Option<Added> {
    let pattern = Pattern {
        path: site.path.to_owned(),
        hosts: if site.host.is_empty() { Vec::new() } else { vec![site.host.to_owned()] },
        priority: site.priority,
        methods: Methods::Only(vec!["GET", "POST"]),
        span: Span::Exact,
    };
    let (first, others) = site.routes.split_first()?;
    let name = first.name.clone();
    let landing = Landing { first: first.clone(), others: others.into() };
    // A host that is no pattern was reported with its route; the paths were checked with the settings.
    builder.add(pattern, Target::Landing(landing)).ok()?;
    Some(Added { path: site.path.to_owned(), route: name, place: site.place })
}

/// What to say of a landing that something else takes.
pub(super) fn overlap(landings: &[Added], index: usize) -> Option<Problem> {
    let Added { path, route, place } = landings.get(index)?;
    Some(place.warning(
        format!("`{path}`, where logins of route `{route}` end, is taken by another route"),
        "give one of them another path",
    ))
}
