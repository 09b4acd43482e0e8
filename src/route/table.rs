//! The table and how it is built.

use crate::gate::CanonicalPath;

use super::host::{self, Asked, HostPattern, HostRank};
use super::path::{self, Segment};
use super::tree::{Search, Slot, Tree, first_segment};
use super::{Find, Methods, Overlap, Part, Pattern, PatternError, Span};

/// Collects patterns; see [`Table`].
#[derive(Debug)]
pub struct Builder<T> {
    strict_slash: bool,
    entries: Vec<Entry<T>>,
    tree: Tree,
}

/// Patterns and their values, compiled. See the module for the order in which patterns are tried.
#[derive(Debug)]
pub struct Table<T> {
    strict_slash: bool,
    pub(super) entries: Vec<Entry<T>>,
    tree: Tree,
}

/// A pattern as the table keeps it.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) text: String,
    pub(super) segments: Vec<Segment>,
    pub(super) hosts: Vec<HostPattern>,
    /// The place of each host in the order of all.
    pub(super) places: Vec<u32>,
    pub(super) priority: i64,
    pub(super) specificity: Specificity,
    pub(super) methods: Methods,
    pub(super) span: Span,
    pub(super) value: T,
    allow: String,
    node: u32,
}

/// Kinds of segments from the left, closed by the end; the smaller is the more specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity(Vec<u8>);

impl Specificity {
    fn of(segments: &[Segment]) -> Self {
        let kinds = segments.iter().map(|segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Placeholder(_) | Segment::Matching { .. } => 1,
        });
        Self(kinds.chain([2]).collect())
    }
}

impl<T> Builder<T> {
    /// An empty table. With `strict_slash`, a path that would match without its last slash is redirected there.
    pub fn new(strict_slash: bool) -> Self {
        Self { strict_slash, entries: Vec::new(), tree: Tree::new() }
    }

    /// Adds a pattern; earlier ones win over later ones that are equal otherwise.
    ///
    /// # Errors
    /// The pattern is not valid, or names a placeholder differently from an earlier one at the same position.
    pub fn add(&mut self, pattern: Pattern, value: T) -> Result<(), PatternError> {
        let segments = path::parse(&pattern.path)?;
        let hosts = host::parse(&pattern.hosts)?;
        let node = self.tree.node(&segments).map_err(|name| PatternError {
            part: Part::Path,
            problem: format!("another route names the same placeholder of {} {{{name}}}", pattern.path),
            remedy: "give it the same name in both",
        })?;
        self.entries.push(Entry {
            text: pattern.path,
            specificity: Specificity::of(&segments),
            segments,
            places: vec![u32::MAX; hosts.len()],
            hosts,
            priority: pattern.priority,
            allow: pattern.methods.allow(),
            methods: pattern.methods,
            span: pattern.span,
            value,
            node,
        });
        Ok(())
    }

    /// Compiles the table. Overlaps are worth a warning each; the table is sound with them.
    pub fn build(mut self) -> (Table<T>, Vec<Overlap>) {
        let mut overlaps = Vec::new();
        for (place, (entry, host)) in self.ranked().into_iter().enumerate() {
            self.place(place, entry, host, &mut overlaps);
        }
        self.tree.seal();
        let table = Table { strict_slash: self.strict_slash, entries: self.entries, tree: self.tree };
        (table, overlaps)
    }

    /// All pairs of pattern and host, in the order in which they take requests.
    fn ranked(&self) -> Vec<(usize, usize)> {
        let hosts = |(at, entry): (usize, &Entry<T>)| {
            let hosts = 0..entry.hosts.len();
            hosts.map(move |host| (at, host))
        };
        let mut pairs: Vec<_> = self.entries.iter().enumerate().flat_map(hosts).collect();
        pairs.sort_by(|one, other| {
            let (left, right) = (&self.entries[one.0], &self.entries[other.0]);
            let by_pattern = left.order().cmp(&right.order());
            by_pattern.then_with(|| left.order_at(one.1).cmp(&right.order_at(other.1))).then(one.cmp(other))
        });
        pairs
    }

    fn place(&mut self, place: usize, at: usize, host: usize, overlaps: &mut Vec<Overlap>) {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        self.entries[at].places[host] = place;
        let entry = &self.entries[at];
        let pattern = &entry.hosts[host];
        let slot = Slot {
            place,
            entry: u32::try_from(at).unwrap_or(u32::MAX),
            port: pattern.port,
            one_label: pattern.kind == host::Kind::OneLabel,
            exact: entry.span == Span::Exact,
            any_method: entry.methods == Methods::Any,
        };
        let hides = |first: u32| first as usize == at || self.entries[first as usize].hides(entry);
        let first = self.tree.insert(entry.node, pattern, slot, hides);
        let first = first.map(|first| first as usize).filter(|first| *first != at);
        overlaps.extend(first.map(|first| Overlap { first, second: at, host: pattern.to_string() }));
    }
}

impl<T> Entry<T> {
    /// What decides between two patterns before their hosts do.
    pub(super) fn order(&self) -> (i64, &Specificity) {
        (self.priority, &self.specificity)
    }

    /// What decides next, for one of the hosts: the host, then whether the methods are named.
    pub(super) fn order_at(&self, host: usize) -> (HostRank, bool) {
        (self.hosts[host].rank(), self.methods == Methods::Any)
    }

    /// On a path and host that both have, does this pattern, coming first, take what the later one was meant for?
    ///
    /// A pattern for certain methods and one for any share a path in peace.
    fn hides(&self, later: &Self) -> bool {
        let methods = match (&self.methods, &later.methods) {
            (Methods::Any, Methods::Any) => true,
            (first, Methods::Only(later)) => first != &Methods::Any && later.iter().any(|method| first.accept(method)),
            (Methods::Only(_), Methods::Any) => false,
        };
        methods && (self.span == Span::Prefix || later.span == Span::Exact)
    }

    /// Is this reading of a path covered?
    pub(super) fn covers(&self, path: &str) -> bool {
        let mut rest = path::inside(path);
        for segment in &self.segments {
            let Some(path) = rest else { return false };
            let (first, after) = first_segment(path);
            if !segment.accepts(first) {
                return false;
            }
            rest = after;
        }
        rest.is_none() || self.span == Span::Prefix
    }
}

impl<T> Table<T> {
    /// Which pattern takes this request?
    ///
    /// `host` is the `Host` field or `:authority` with its port, or empty; `method` is case-sensitive.
    pub fn find(&self, path: &CanonicalPath<'_>, host: &str, method: &str) -> Find<'_, T> {
        let host = Asked::new(host);
        let mut search = Search {
            host: &host,
            accepts: |entry: u32| self.entries[entry as usize].methods.accept(method),
            best: None,
            refused: None,
        };
        self.tree.search(path::inside(path.decoded()), &mut search);
        if search.best.is_none() {
            return match search.refused {
                Some(slot) => Find::MethodNotAllowed { allow: &self.entries[slot.entry as usize].allow },
                None => self.redirect(path, search),
            };
        }
        for form in path.others() {
            self.tree.search(path::inside(form), &mut search);
        }
        match search.best {
            Some(slot) => Find::Found(&self.entries[slot.entry as usize].value),
            None => Find::Nothing,
        }
    }

    /// Patterns have no slash at the end, so the other form can only be the one without it.
    fn redirect<F: Fn(u32) -> bool>(&self, path: &CanonicalPath<'_>, mut search: Search<'_, F>) -> Find<'_, T> {
        let raw = path.raw().strip_suffix('/');
        let (Some(raw), Some(decoded), true) = (raw, path.decoded().strip_suffix('/'), self.strict_slash) else {
            return Find::Nothing;
        };
        self.tree.search(path::inside(decoded), &mut search);
        // A location that starts with two slashes names another host.
        match search.best.is_some() || search.refused.is_some() {
            true if !raw.starts_with("//") => Find::Redirect { path: raw.to_owned() },
            _ => Find::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate;

    fn pattern(path: &str) -> Pattern {
        Pattern { path: path.to_owned(), hosts: Vec::new(), priority: 0, methods: Methods::Any, span: Span::Prefix }
    }

    /// A route as tests write it: path, hosts separated by spaces, priority.
    fn route(path: &str, hosts: &str, priority: i64) -> Pattern {
        Pattern { hosts: hosts.split_whitespace().map(str::to_owned).collect(), priority, ..pattern(path) }
    }

    fn own(path: &str, method: &'static str, span: Span) -> Pattern {
        Pattern { methods: Methods::Only(vec![method]), span, ..pattern(path) }
    }

    /// The gateway's own endpoints, as the server adds them before all routes.
    fn own_endpoints() -> Vec<Pattern> {
        vec![
            own("/metrics", "GET", Span::Prefix),
            own("/healthz/routes", "GET", Span::Prefix),
            own("/gateway/reload", "POST", Span::Exact),
            own("/healthz", "GET", Span::Exact),
        ]
    }

    /// A table whose values are the indices of its patterns.
    fn table(patterns: Vec<Pattern>) -> (Table<usize>, Vec<Overlap>) {
        let mut builder = Builder::new(true);
        for (index, pattern) in patterns.into_iter().enumerate() {
            builder.add(pattern, index).unwrap();
        }
        builder.build()
    }

    /// What happens to a request, in a word.
    fn found(table: &Table<usize>, method: &str, host: &str, path: &str) -> String {
        match table.find(&gate::path(path).unwrap(), host, method) {
            Find::Found(index) => index.to_string(),
            Find::MethodNotAllowed { allow } => format!("allow {allow}"),
            Find::Redirect { path } => format!("to {path}"),
            Find::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_route_covers_its_path_and_what_is_below_in_whole_segments() {
        let rows = [
            ("itself", "/api", "/api", true),
            ("with a slash", "/api", "/api/", true),
            ("below", "/api", "/api/x/y", true),
            ("not half a segment", "/api", "/apiary", false),
            ("not another case", "/api", "/API", false),
            ("not behind an empty segment", "/api", "//api/x", false),
            ("encoded slash", "/api", "/api%2Fx", true),
            ("encoded letter", "/api", "/%61pi", true),
            ("slash in the pattern", "/api/", "/api", true),
            ("no slash in the pattern", "api", "/api/x", true),
            ("root", "/", "/anything/at/all", true),
            ("root itself", "/", "/", true),
            ("empty", "", "/x", true),
            ("root, many slashes", "/", "///", true),
            ("placeholder", "/users/{id}", "/users/1", true),
            ("below a placeholder", "/users/{id}", "/users/1/posts", true),
            ("no segment for the placeholder", "/users/{id}", "/users", false),
            ("empty segment for it", "/users/{id}", "/users/", false),
            ("empty segment for it, and more", "/users/{id}", "/users//x", false),
            ("expression", "/{id:[0-9]+}", "/42/x", true),
            ("expression, in full", "/{id:[0-9]+}", "/42a", false),
            ("asterisk is itself", "/files/*", "/files/*", true),
            ("asterisk is nothing else", "/files/*", "/files/a", false),
            ("literal below a placeholder", "/u/{id}/x", "/u/1/x", true),
            ("other literal below it", "/u/{id}/x", "/u/1/y", false),
            ("slash kept encoded", "/a%2Fb", "/a%2Fb", false),
        ];
        for (what, path, request, expected) in rows {
            let (table, _) = table(vec![pattern(path)]);
            let expected = if expected { "0" } else { "nothing" };
            assert_eq!(found(&table, "GET", "a", request), expected, "{what}");
        }
    }

    #[test]
    fn the_first_in_order_takes_the_request() {
        let rows = [
            ("longest path", vec![("/", "", 0), ("/api", "", 0), ("/api/v1", "", 0)], "/api/v1/x", "2"),
            ("literal before placeholder", vec![("/u/{id}", "", 0), ("/u/me", "", 0)], "/u/me/x", "1"),
            ("placeholder before end", vec![("/u", "", 0), ("/u/{id}", "", 0)], "/u/1", "1"),
            ("the left segment counts first", vec![("/{x}/b/c", "", 0), ("/a", "", 0)], "/a/b/c", "1"),
            ("back from a dead end", vec![("/a/b/c", "", 0), ("/{x}/b", "", 0)], "/a/b/x", "1"),
            ("expressions are placeholders", vec![("/{x}/b", "", 0), ("/{x:a}", "", 0)], "/a/b", "0"),
            ("unset priority beats a positive one", vec![("/api", "", 1), ("/", "", 0)], "/api/x", "1"),
            ("negative beats unset", vec![("/api", "", 0), ("/", "", -1)], "/api/x", "1"),
            (
                "priority belongs to a route, not to its path",
                vec![("/api", "b", -1), ("/", "", 0), ("/api", "a", 5)],
                "/api",
                "1",
            ),
            ("named host", vec![("/", "*", 0), ("/", "*.b", 0), ("/", "a", 0)], "/", "2"),
            ("priority before host", vec![("/", "a", 1), ("/", "", 0)], "/", "1"),
            ("path before host", vec![("/", "a", 0), ("/x", "", 0)], "/x", "1"),
            ("the first of two alike", vec![("/x", "", 0), ("/x/", "", 0)], "/x", "0"),
            ("merged slashes find the guard", vec![("/", "", 0), ("/admin", "", 0)], "//admin/x", "1"),
            ("a dot segment does not hide it", vec![("/", "", 0), ("/admin", "", 0)], "/./admin", "1"),
            ("merged slashes alone match nothing", vec![("/api", "", 0)], "//api/x", "nothing"),
            ("a slash kept encoded is a form too", vec![("/", "", 0), ("/a%2Fb", "", 0)], "/a%2fb", "1"),
            ("nothing", vec![("/api", "", 0)], "/", "nothing"),
        ];
        for (what, routes, request, expected) in rows {
            let routes = routes.into_iter().map(|(path, hosts, priority)| route(path, hosts, priority));
            let (table, _) = table(routes.collect());
            assert_eq!(found(&table, "GET", "a", request), expected, "{what}");
        }
    }

    #[test]
    fn the_path_decides_before_the_host() {
        let (table, _) = table(vec![route("/api", "a", 0), route("/", "b", 0), route("/api/v1", "", 0)]);
        let rows = [
            ("another host's path is passed over", "b", "/api/x", "1"),
            ("any host, nearer path", "b", "/api/v1/q", "2"),
            ("its own", "a", "/api/x", "0"),
            ("none", "c", "/api/x", "nothing"),
        ];
        for (what, host, path, expected) in rows {
            assert_eq!(found(&table, "GET", host, path), expected, "{what}");
        }
    }

    #[test]
    fn the_most_specific_host_takes_the_request() {
        let (table, overlaps) = table(vec![
            route("/", "*", 0),
            route("/", "*.example.com", 0),
            route("/", "{sub}.example.com", 0),
            route("/", "api.example.com", 0),
            route("/", "api.example.com:8443", 0),
            route("/", "*.example.com:81", 0),
            route("/", "*.b.example.com", 0),
            route("/", "[::1]", 0),
        ]);
        let rows = [
            ("port", "api.example.com:8443", "4"),
            ("other port", "api.example.com:80", "3"),
            ("case and trailing dot", "API.Example.com.", "3"),
            ("one label", "x.example.com", "2"),
            ("one label before a port", "x.example.com:81", "2"),
            ("two labels", "x.y.example.com", "1"),
            ("two labels and a port", "x.y.example.com:81", "5"),
            ("longer suffix", "a.b.example.com", "6"),
            ("the apex", "example.com", "0"),
            ("IPv6", "[::1]:80", "7"),
            ("other IPv6", "[::2]", "0"),
            ("no host", "", "0"),
        ];
        for (what, host, expected) in rows {
            assert_eq!(found(&table, "GET", host, "/"), expected, "{what}");
        }
        assert_eq!(overlaps, []);
    }

    #[test]
    fn own_endpoints_stand_beside_the_routes_of_the_user() {
        let with = |routes: Vec<Pattern>| table(own_endpoints().into_iter().chain(routes).collect()).0;
        let rows = [
            ("GET", "a", "/healthz", route("/x", "", 0), "3"),
            ("HEAD", "a", "/healthz", route("/x", "", 0), "3"),
            ("POST", "zzz", "/healthz", route("/", "a", 0), "allow GET, HEAD"),
            ("GET", "zzz", "/gateway/reload", route("/", "a", 0), "allow POST"),
            ("POST", "a", "/healthz", route("/", "a", 0), "4"),
            ("GET", "a", "/healthz", route("/", "a", 0), "3"),
            ("GET", "a", "/healthz", route("/healthz", "", 0), "3"),
            ("POST", "a", "/healthz", route("/healthz", "", 0), "4"),
            ("GET", "a", "/healthz/x", route("/healthz", "", 0), "4"),
            ("GET", "a", "/healthz", route("/", "", -1), "4"),
            ("GET", "a", "/metrics/x", route("/", "", 0), "0"),
            ("GET", "a", "/healthz/routes", route("/healthz", "", 0), "1"),
            ("GET", "a", "/healthz/", route("/x", "", 0), "to /healthz"),
            ("GET", "a", "/healthz/", route("/", "", 0), "4"),
            ("GET", "a", "/%68ealthz/", route("/x", "", 0), "to /%68ealthz"),
            ("GET", "a", "/healthz//", route("/x", "", 0), "nothing"),
            ("GET", "a", "//healthz/", route("/x", "", 0), "nothing"),
            ("POST", "a", "/metrics/", route("/x", "", 0), "allow GET, HEAD"),
        ];
        for (method, host, path, user, expected) in rows {
            let what = format!("{method} {host}{path} with {} {:?}", user.path, user.hosts);
            assert_eq!(found(&with(vec![user]), method, host, path), expected, "{what}");
        }
    }

    #[test]
    fn without_strict_slash_nothing_is_redirected() {
        let mut builder = Builder::new(false);
        builder.add(own("/healthz", "GET", Span::Exact), 0).unwrap();
        let (table, _) = builder.build();
        assert_eq!(found(&table, "GET", "a", "/healthz/"), "nothing");
    }

    #[test]
    fn a_hidden_route_is_told_and_keeps_its_other_hosts() {
        let (found_by, overlaps) = table(vec![route("/d", "a", 0), route("/d/", "A b", 0)]);
        let hidden = |first, second, host: &str| Overlap { first, second, host: host.to_owned() };
        assert_eq!(overlaps, [hidden(0, 1, "a")]);
        assert_eq!(found(&found_by, "GET", "a", "/d"), "0");
        assert_eq!(found(&found_by, "GET", "b", "/d"), "1");

        let rows = [
            ("any host", vec![route("/d", "", 0), route("/d", "*", 0)], vec![hidden(0, 1, "*")]),
            ("by priority", vec![route("/d", "", 5), route("/d", "", 0)], vec![hidden(1, 0, "*")]),
            ("three", vec![route("/d", "", 0); 3], vec![hidden(0, 1, "*"), hidden(0, 2, "*")]),
            ("other port", vec![route("/d", "a:1", 0), route("/d", "a", 0)], vec![]),
            ("other wildcard", vec![route("/d", "*.a", 0), route("/d", "{x}.a", 0)], vec![]),
            ("twice in one route", vec![route("/d", "a A a.", 0)], vec![]),
            ("certain methods", vec![own("/d", "GET", Span::Prefix), route("/d", "", 0)], vec![]),
            ("other methods", vec![own("/d", "GET", Span::Exact), own("/d", "POST", Span::Exact)], vec![]),
            (
                "same methods",
                vec![own("/d", "GET", Span::Exact), own("/d", "HEAD", Span::Exact)],
                vec![hidden(0, 1, "*")],
            ),
        ];
        for (what, routes, expected) in rows {
            assert_eq!(table(routes).1, expected, "{what}");
        }
    }

    #[test]
    fn one_position_has_one_placeholder_name() {
        let mut builder = Builder::new(true);
        builder.add(pattern("/users/{id}"), 0).unwrap();
        builder.add(pattern("/users/{id}/posts"), 1).unwrap();
        builder.add(pattern("/users/{n:[0-9]+}"), 2).unwrap();
        builder.add(pattern("/groups/{name}"), 3).unwrap();
        let error = builder.add(pattern("/users/{uid}/x"), 4).unwrap_err();
        assert_eq!(error.part, Part::Path);
        assert!(error.to_string().contains("{id}"), "{error}");
    }
}
