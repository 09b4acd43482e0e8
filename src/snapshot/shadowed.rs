//! Routes that never get a request, because one with a lower priority number takes all of theirs: in Goma, and here, a route
//! without a priority comes before every route with a positive one. Spec core §4.5.

use std::collections::HashMap;

use crate::config::{Problem, Route};

/// A warning for each of these routes that is surely hidden; `routes` are those that are on.
pub fn warnings(routes: &[&Route]) -> Vec<Problem> {
    if routes.iter().all(|route| route.priority == routes[0].priority) {
        return Vec::new();
    }
    let listed: Vec<Listed> = routes.iter().map(|route| Listed::of(route)).collect();
    let mut index = Index::default();
    for route in &listed {
        index.insert(route);
    }
    listed.iter().filter_map(|route| Some(warning(route.route, index.above(route)?))).collect()
}

fn warning(route: &Route, first: &Route) -> Problem {
    let message = format!(
        "route `{}` (`{}`, priority {}) comes first and takes every request: a lower number wins, and none is 0",
        first.name, first.path, first.priority
    );
    let remedy = format!("give it a number below {}, or `{}` one above {}", first.priority, first.name, route.priority);
    route.at.child("priority").warning(message, remedy)
}

/// A route as it is compared.
struct Listed<'a> {
    route: &'a Route,
    /// Without slashes around it.
    path: &'a str,
    /// In lower case; none for all of them.
    hosts: Vec<String>,
}

impl<'a> Listed<'a> {
    fn of(route: &'a Route) -> Listed<'a> {
        let named = route.hosts.iter().map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
        let mut hosts: Vec<String> = named.collect();
        if hosts.iter().any(|host| host == "*") {
            hosts.clear();
        }
        Listed { route, path: route.path.trim_matches('/'), hosts }
    }
}

/// Routes by what they take, so that each is compared with few of the others.
#[derive(Default)]
struct Index<'a> {
    /// Of those for all hosts, the first of each path.
    open: HashMap<&'a str, &'a Route>,
    named: HashMap<(&'a str, &'a str), Vec<&'a Listed<'a>>>,
}

impl<'a> Index<'a> {
    fn insert(&mut self, route: &'a Listed<'a>) {
        if route.hosts.is_empty() {
            let first = self.open.entry(route.path).or_insert(route.route);
            if route.route.priority < first.priority {
                *first = route.route;
            }
        }
        for host in &route.hosts {
            self.named.entry((route.path, host)).or_default().push(route);
        }
    }

    /// The first route that takes all that this one could get.
    fn above(&self, route: &Listed<'_>) -> Option<&'a Route> {
        let folders = route.path.match_indices('/').map(|(end, _)| &route.path[..end]);
        let paths = folders.chain([route.path]).chain((!route.path.is_empty()).then_some(""));
        let takers = paths.flat_map(|path| {
            let named = route.hosts.first().and_then(|host| self.named.get(&(path, host.as_str())));
            let all = |other: &&&Listed<'_>| route.hosts.iter().all(|host| other.hosts.contains(host));
            let named = named.into_iter().flatten().filter(all).map(|other| other.route);
            self.open.get(path).copied().into_iter().chain(named)
        });
        takers.filter(|other| other.priority < route.route.priority).min_by_key(|other| other.priority)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn route(name: &str, path: &str, hosts: &[&str], priority: i64) -> Route {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Route { name: name.into(), path: path.into(), hosts, priority, ..Route::default() }
    }

    fn hidden(routes: &[Route]) -> usize {
        warnings(&routes.iter().collect::<Vec<_>>()).len()
    }

    #[test]
    fn a_route_is_hidden_by_one_that_comes_first_and_takes_all_of_it() {
        for (what, first, later, expected) in [
            ("the same path", ("/a", &[][..]), ("/a", &[][..]), 1),
            ("a folder above", ("/a", &[]), ("/a/b/c", &[]), 1),
            ("the root", ("/", &[]), ("/a", &["x"]), 1),
            ("a path beside", ("/a", &[]), ("/ab", &[]), 0),
            ("a path below", ("/a/b", &[]), ("/a", &[]), 0),
            ("some hosts of all", ("/", &["x"]), ("/", &[]), 0),
            ("all its hosts", ("/", &["X", "y"]), ("/", &["y", "x"]), 1),
            ("not all its hosts", ("/", &["x"]), ("/", &["x", "y"]), 0),
            ("any host", ("/", &["*"]), ("/", &["x"]), 1),
        ] {
            let routes = [route("later", later.0, later.1, 2), route("first", first.0, first.1, 1)];
            assert_eq!(hidden(&routes), expected, "{what}");
        }
    }

    #[test]
    fn many_hosts_are_compared_in_no_time() {
        let routes: Vec<Route> =
            (0..10_000).map(|n| route("r", "/", &[&format!("h{n}.example")], i64::from(n % 7))).collect();
        let begun = Instant::now();
        assert_eq!(hidden(&routes), 0);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
