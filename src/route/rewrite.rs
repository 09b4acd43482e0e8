//! stub
use std::borrow::Cow;
/// s
pub struct Rewrite;
impl Rewrite {
    /// n
    pub fn new(_: &str, _: &str) -> Result<Rewrite, &'static str> { Ok(Rewrite) }
    /// a
    pub fn apply<'a>(&self, p: &'a str) -> Option<Cow<'a, str>> { Some(Cow::Borrowed(p)) }
}
/// j
pub fn join(out: &mut String, base: &str, path: &str) { out.push_str(base.trim_end_matches('/')); out.push_str(path) }
/// q
pub fn join_query(out: &mut String, base: Option<&str>, q: Option<&str>) { out.push_str(base.unwrap_or("")); out.push_str(q.unwrap_or("")) }
