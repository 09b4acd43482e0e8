//! What an entry point hands requests to.

use std::future::Future;

use pingora_core::apps::ReusedHttpStream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::custom::server::Session;
use tokio::sync::watch;

/// Answers requests.
pub trait App: Send + Sync + 'static {
    /// Answers a request whose head is read: any of HTTP/2, and one of HTTP/1 that ends with its head.
    fn answer(&self, request: Box<dyn Session>, shutdown: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send;

    /// Answers a request of HTTP/1 that is to be read yet; gives the connection back where it can carry another one.
    fn take(
        &self,
        session: ServerSession,
        shutdown: &watch::Receiver<bool>,
    ) -> impl Future<Output = Option<ReusedHttpStream>> + Send;
}
