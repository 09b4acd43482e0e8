//! What is wrong with the paths and hosts of routes, each told where it was written.

use super::pattern;
use crate::config::{Place, Problem, Route as RouteConfig};
use crate::route::{Builder, Overlap, Part as PatternPart, Pattern, PatternError};

/// The table names the first wrong part; here each host is tried by itself, so that all wrong ones are told at once.
pub fn wrong(route: &RouteConfig, error: &PatternError) -> Vec<Problem> {
    let alone = |index: usize| {
        let hosts = vec![route.hosts[index].clone()];
        let tried = Builder::new(true).add(Pattern { hosts, ..pattern(route) }, ());
        tried.err().map(|error| PatternError { part: PatternPart::Host(index), ..error })
    };
    let wrong: Vec<Problem> = match error.part {
        PatternPart::Path => Vec::new(),
        PatternPart::Host(_) => (0..route.hosts.len()).filter_map(alone).map(|e| problem(route, &e)).collect(),
    };
    if wrong.is_empty() { vec![problem(route, error)] } else { wrong }
}

fn problem(route: &RouteConfig, error: &PatternError) -> Problem {
    let place = match error.part {
        PatternPart::Host(index) => route.at.child("hosts").item(index),
        PatternPart::Path => route.at.child("path"),
    };
    place.error(error.problem.clone(), error.remedy)
}

/// `own` are the gateway's endpoints; the routes were added behind them.
pub fn overlap(overlap: &Overlap, own: &[(String, Place)], routes: &[&RouteConfig]) -> Problem {
    let first = match overlap.first.checked_sub(own.len()) {
        Some(index) => format!("route `{}`", routes[index].name),
        None => "an endpoint of the gateway".to_owned(),
    };
    let (path, place) = match overlap.second.checked_sub(own.len()) {
        Some(index) => (&routes[index].path, routes[index].at.child("path")),
        None => (&own[overlap.second].0, own[overlap.second].1.clone()),
    };
    let host = if overlap.host == "*" { "any host" } else { &overlap.host };
    place.warning(
        format!("`{path}` for {host} is already taken by {first}, which keeps it"),
        "give one of them another path or host",
    )
}
