//! Questions that carry the headers they are given and no others: which ones a server is asked with is part of what it was
//! promised. Spec middlewares §5.9.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{CONNECT, CallError, EachOnce, IDLE, Verify, tls, told};

/// A pooled client that asks by GET over HTTP/1.1. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Asker(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Asker {
    /// The client for servers that are verified so; the process has one of each.
    ///
    /// # Errors
    /// When the TLS library refuses its own settings.
    pub fn get(verify: Verify) -> Result<Asker, String> {
        static ASKERS: EachOnce<Asker> = EachOnce::new();
        ASKERS.get(verify, Asker::new)
    }

    fn new(verify: Verify) -> Result<Asker, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(verify)?).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(UNUSED)
            .pool_max_idle_per_host(IDLE)
            .http1_title_case_headers(true)
            .build(connector.wrap_connector(tcp));
        Ok(Asker(client))
    }

    /// Asks, and reads the head of the answer. A short body is read and forgotten, so that the connection can be used again.
    ///
    /// # Errors
    /// When there was no answer within `limit`.
    pub async fn ask(
        &self,
        url: &Uri,
        headers: HeaderMap,
        limit: Duration,
    ) -> Result<(StatusCode, HeaderMap), CallError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers;
        let answer = tokio::time::timeout(limit, self.0.request(request)).await;
        let late = |_| CallError::Failed(format!("no answer within {limit:?}"));
        let (head, mut body) = answer.map_err(late)?.map_err(|error| told(&error))?.into_parts();
        tokio::spawn(tokio::time::timeout(limit, async move {
            let mut left = super::FORGOTTEN;
            while let Some(Ok(frame)) = body.frame().await {
                match frame.data_ref().map_or(0, Bytes::len) {
                    length if length < left => left -= length,
                    _ => break,
                }
            }
        }));
        Ok((head.status, head.headers))
    }
}

/// How long an unused connection is kept.
const UNUSED: Duration = Duration::from_secs(90);
