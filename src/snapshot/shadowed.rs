//! Routes that never get a request, because one with a lower priority number takes all of theirs: in Goma, and here, a route
//! without a priority comes before every route with a positive one. Spec core §4.5.

use std::collections::HashMap;

use crate::config::{Problem, Route};

/// A warning for each of these routes that is surely hidden; `routes` are those that are on.
pub fn warnings(routes: &[&Route]) -> Vec<Problem> {
    if routes.iter().all(|route| route.priority == routes[0].priority) {
        return Vec::new();
    }
    let mut by_path: HashMap<&str, Vec<&Route>> = HashMap::new();
    for route in routes {
        by_path.entry(trimmed(&route.path)).or_default().push(route);
    }
    routes.iter().filter_map(|route| warning(route, &by_path)).collect()
}

fn warning(route: &Route, by_path: &HashMap<&str, Vec<&Route>>) -> Option<Problem> {
    let path = trimmed(&route.path);
    let above = path.match_indices('/').map(|(end, _)| &path[..end]);
    let first = above
        .chain((!path.is_empty()).then_some(""))
        .flat_map(|path| by_path.get(path).into_iter().flatten())
        .filter(|other| other.priority < route.priority && covers_hosts(other, route))
        .min_by_key(|other| other.priority)?;
    let message = format!(
        "route `{}` (`{}`, priority {}) comes first and takes every request: a lower number wins, and none is 0",
        first.name, first.path, first.priority
    );
    let remedy = format!("give it a number below {}, or `{}` one above {}", first.priority, first.name, route.priority);
    Some(route.at.child("priority").warning(message, remedy))
}

/// The path as it is compared: without slashes around it.
fn trimmed(path: &str) -> &str {
    path.trim_matches('/')
}

fn covers_hosts(first: &Route, later: &Route) -> bool {
    let named = |route: &Route| -> Vec<String> {
        route.hosts.iter().map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect()
    };
    let (first, later) = (named(first), named(later));
    first.is_empty()
        || first.iter().any(|host| host == "*")
        || !later.is_empty() && later.iter().all(|host| first.contains(host))
}
