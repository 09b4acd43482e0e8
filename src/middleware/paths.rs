//! Which paths a middleware applies to: Goma's two passes, compiled once.
//!
//! First every entry is searched as an unanchored, case-sensitive regular expression; then every entry is compared as text,
//! by itself and behind the route's path, ignoring case, with `/*` at its end standing for any continuation (no segment
//! boundary). Spec middlewares §2. An entry that is neither a valid expression nor a plain path is an error (design ruling).
//!
//! A guard tests the decoded path, and where they differ also the path as sent and with merged slashes: any hit guards.

use std::sync::Arc;

use regex::RegexSet;

use super::Scope;
use super::goregex;
use crate::config::{Place, Problem};
use crate::gate;

/// The `paths` of a middleware definition; shared by all routes that use it.
#[derive(Debug, Default)]
pub struct PathRules {
    entries: Vec<String>,
    expressions: RegexSet,
}

impl PathRules {
    /// Compiles the entries.
    ///
    /// # Errors
    /// Each entry that is neither a valid expression nor a plain path, and a set too large to compile.
    pub fn compile(entries: &[String], place: &Place) -> Result<PathRules, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut valid = Vec::new();
        let mut stopped = false;
        for (index, entry) in entries.iter().enumerate() {
            match goregex::translate(entry) {
                Ok(expression) if !stopped => valid.push(expression),
                Ok(_) => {}
                // Goma stops its first pass at the first entry that does not compile.
                Err(_) if entry.starts_with('/') && !entry.contains("**") => stopped = true,
                Err(error) => problems.push(place.child("paths").item(index).error(
                    format!("`{entry}` is neither a regular expression ({error}) nor a plain path"),
                    "write a path such as `/admin/*`, or an expression such as `\\.php$`",
                )),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let expressions = RegexSet::new(&valid).map_err(|error| {
            vec![place.child("paths").error(format!("the expressions do not compile: {error}"), "simplify them")]
        })?;
        Ok(PathRules { entries: entries.to_vec(), expressions })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry.
    pub fn first(&self) -> Option<&str> {
        self.entries.first().map(String::as_str)
    }

    /// Length of the first entry; orders header policies.
    pub fn first_len(&self) -> usize {
        self.entries.first().map_or(0, String::len)
    }
}

/// A word to who gives `paths` to a kind that looks at every request, as it does in Goma.
pub(super) fn ignored(scope: &Scope<'_>) -> Option<Problem> {
    let paths = scope.place.child("paths");
    paths.is_present().then(|| paths.warning("do not count here: every request is looked at", "remove them"))
}

/// The paths of a middleware on one route.
#[derive(Debug)]
pub struct Paths {
    rules: Arc<PathRules>,
    texts: Vec<Text>,
}

/// An entry as text: in lower case, `true` when anything may follow.
#[derive(Debug)]
struct Text(String, bool);

impl Paths {
    /// The definition's paths as they count on the route that is being built.
    pub fn of(scope: &Scope<'_>) -> Paths {
        Paths::new(scope.paths.clone(), scope.route_path)
    }

    /// Paths behind a route path; an empty route path adds nothing.
    pub fn new(rules: Arc<PathRules>, route_path: &str) -> Paths {
        let mut texts = Vec::new();
        for entry in &rules.entries {
            let behind = (!route_path.is_empty()).then(|| format!("{route_path}{entry}"));
            for text in [Some(entry.clone()), behind].into_iter().flatten() {
                let mut text = text.replace("//", "/").to_lowercase();
                if !text.starts_with('/') {
                    text.insert(0, '/');
                }
                match text.strip_suffix("/*") {
                    Some(start) => texts.push(Text(start.to_owned(), true)),
                    None => texts.push(Text(text, false)),
                }
            }
        }
        Paths { rules, texts }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a guard with these paths applies to a raw path, in any form that a backend might read it.
    ///
    /// A path that the gate would refuse is guarded.
    pub fn guard(&self, raw: &str) -> bool {
        match gate::path(raw) {
            Ok(path) => path.forms().any(|form| self.matches(form)),
            Err(_) => true,
        }
    }

    /// Whether a middleware that guards nothing applies to a raw path: where there are none, to every path.
    pub fn take(&self, raw: &str) -> bool {
        self.is_empty() || gate::path(raw).is_ok_and(|path| path.forms().any(|form| self.matches(form)))
    }

    /// Whether one form of a path is listed.
    pub fn matches(&self, path: &str) -> bool {
        self.rules.expressions.is_match(path) || self.texts.iter().any(|text| text.matches(path))
    }
}

impl Text {
    fn matches(&self, path: &str) -> bool {
        let Text(text, open) = self;
        if path.is_ascii() {
            let head = if *open { path.get(..text.len()) } else { Some(path) };
            return head.is_some_and(|head| head.eq_ignore_ascii_case(text));
        }
        let path = path.to_lowercase();
        if *open { path.starts_with(text) } else { path == *text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(entries: &[&str], route: &str) -> Paths {
        let entries: Vec<String> = entries.iter().map(|e| e.to_string()).collect();
        Paths::new(Arc::new(PathRules::compile(&entries, &Place::default()).expect("valid")), route)
    }

    #[test]
    fn entries_match_as_in_goma() {
        for (entry, hits, misses) in [
            ("/admin", &["/admin", "/ADMIN", "/admin/x", "/administrator", "/v1/admin"][..], &["/other"][..]),
            ("/admin/*", &["/admin", "/admin/x", "/administrator", "/v1/admin"], &["/other"]),
            ("/Admin", &["/admin", "/ADMIN", "/Admin/x"], &["/admin/x"]),
            ("/*", &["/", "/x", "/a/b"], &[]),
            ("/.*", &["/", "/x"], &[]),
            ("^/x$", &["/x"], &["/x.php", "/v/x"]),
            ("/a(b", &["/a(b", "/A(B"], &["/ab", "/a"]),
            ("/docs/.*", &["/docs/", "/docs/a", "/v2/docs/a"], &["/docs"]),
        ] {
            let paths = paths(&[entry], "/");
            for path in hits {
                assert!(paths.matches(path), "{entry} takes {path}");
            }
            for path in misses {
                assert!(!paths.matches(path), "{entry} leaves {path}");
            }
        }
    }

    #[test]
    fn an_entry_also_counts_behind_the_routes_path() {
        let paths = paths(&["/admin"], "/api");
        assert!(paths.matches("/api/ADMIN") && paths.matches("/api/x/admin/y"));
        assert!(!paths.matches("/api/ADMIN/x"));
    }

    #[test]
    fn a_guard_sees_every_form_of_a_path() {
        let paths = paths(&["^/admin"], "/");
        for raw in ["/admin", "//admin", "/%61dmin", "/admin%2Fx", "/%2Fadmin"] {
            assert!(paths.guard(raw), "{raw}");
        }
        assert!(!paths.guard("/x/admin"));
    }

    #[test]
    fn an_entry_that_means_nothing_is_an_error() {
        for entry in ["*.php", "/**", "a(b"] {
            let found = PathRules::compile(&[entry.to_owned()], &Place::default());
            assert_eq!(found.map_err(|p| p.len()).unwrap_err(), 1, "{entry}");
        }
    }

    #[test]
    fn no_entry_matches_nothing() {
        assert!(!paths(&[], "/").matches("/"));
    }
}
