//! What is counted for one route.
//!
//! A route resolves its [`RouteMetrics`] when it is compiled. A request then costs two additions when it begins and about
//! six when it ends; nothing is looked up by name and nothing is allocated once a method and a status have been seen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::cells::{Histogram, Reasons, Statuses};
use crate::exchange::Reason;

macro_rules! methods {
    ($($id:ident $word:literal,)*) => {
        /// HTTP methods as a metric label: the known ones, and one word for all others, so that clients cannot make series.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $(#[doc = $word] $id,)* }

        impl Method {
            /// Every method.
            pub const ALL: &[Method] = &[$(Method::$id),*];
            const COUNT: usize = Method::ALL.len();

            /// The word on the metrics page.
            pub fn word(self) -> &'static str {
                match self { $(Method::$id => $word,)* }
            }

            /// The label for a method as it stands in a request; case matters, as in HTTP.
            pub fn parse(text: &str) -> Method {
                match text { $($word => Method::$id,)* _ => Method::Other }
            }
        }
    };
}

methods! {
    Get "GET", Head "HEAD", Post "POST", Put "PUT", Delete "DELETE", Connect "CONNECT", Options "OPTIONS", Trace "TRACE",
    Patch "PATCH", Propfind "PROPFIND", Proppatch "PROPPATCH", Mkcol "MKCOL", Copy "COPY", Move "MOVE", Lock "LOCK",
    Unlock "UNLOCK", Report "REPORT", Search "SEARCH", Query "QUERY", Other "OTHER",
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Method {
        Method::parse(method.as_str())
    }
}

/// Facts about a request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Method of the request.
    pub method: Method,
    /// Status that the client got, or 499 and the like where it got none.
    pub status: u16,
    /// From the request head to the end of the response.
    pub duration: Duration,
    /// Time in the upstream alone; `None` when no backend was asked.
    pub upstream: Option<Duration>,
    /// Bytes of the response body sent to the client.
    pub response_bytes: u64,
    /// Why it ended.
    pub reason: Reason,
}

/// The counters of one route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    methods: [OnceLock<Box<MethodCells>>; Method::COUNT],
    pub(super) upstream: Histogram,
    pub(super) ends: Reasons,
    intercepted: OnceLock<Box<Statuses>>,
}

/// The counters of one route and method.
#[derive(Debug, Default)]
pub(super) struct MethodCells {
    pub requests: AtomicU64,
    pub request_bytes: AtomicU64,
    pub response_bytes: AtomicU64,
    pub duration: Histogram,
    pub statuses: Statuses,
}

impl RouteMetrics {
    /// A request has reached the route. `content_length` as the client announced it.
    pub fn begin(&self, method: Method, content_length: Option<u64>) {
        let cells = self.cells(method);
        cells.requests.fetch_add(1, Relaxed);
        if let Some(bytes) = content_length {
            cells.request_bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// A request has ended, however it did. Once a request.
    pub fn end(&self, end: &End) {
        let cells = self.cells(end.method);
        cells.statuses.add(end.status);
        cells.duration.observe(end.duration);
        cells.response_bytes.fetch_add(end.response_bytes, Relaxed);
        if let Some(duration) = end.upstream {
            self.upstream.observe(duration);
        }
        self.ends.add(end.reason);
    }

    /// An error interceptor replaced a response with this status.
    pub fn intercepted(&self, status: u16) {
        self.intercepted.get_or_init(Box::default).add(status);
    }

    fn cells(&self, method: Method) -> &MethodCells {
        self.methods[method as usize].get_or_init(Box::default)
    }

    /// Every method seen, with its counters.
    pub(super) fn seen(&self) -> impl Iterator<Item = (Method, &MethodCells)> {
        let cells = Method::ALL.iter().zip(&self.methods);
        cells.filter_map(|(method, cells)| Some((*method, &**cells.get()?)))
    }

    /// Every intercepted status, with its count.
    pub(super) fn intercepts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.intercepted.get().into_iter().flat_map(|statuses| statuses.seen())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_makes_no_series_of_its_own() {
        for (given, label) in [
            ("GET", "GET"),
            ("PROPFIND", "PROPFIND"),
            ("get", "OTHER"),
            ("OTHER", "OTHER"),
            ("BREW", "OTHER"),
            ("", "OTHER"),
        ] {
            assert_eq!(Method::parse(given).word(), label, "{given:?}");
        }
        assert_eq!(Method::from(&http::Method::PATCH), Method::Patch);
    }

    #[test]
    fn a_route_without_requests_has_no_counters() {
        let route = RouteMetrics::default();
        assert_eq!(route.seen().count(), 0);
        assert_eq!(route.intercepts().count(), 0);
        route.begin(Method::Get, None);
        assert_eq!(route.seen().map(|(method, _)| method).collect::<Vec<_>>(), [Method::Get]);
    }
}
