//! The life of a request: Pingora's phases from top to bottom, one short method each.
//!
//! What a phase does stands in its own file: `phases` (what both ways of a request share), `arrive` (who asks, which route), `attempt` (which backend, how long), `own` (the
//! gateway's endpoints), `forward` (the upstream request), `direct` (exchanges that go without Pingora's way to the backend),
//! `door` (requests that need nothing of Pingora's way), `hedge` (several attempts at a time), `respond` (the way back), `fail`
//! (errors to replies), `record` (log and metric).

pub(crate) mod arrive;
mod attempt;
mod cached;
mod ctx;
mod decode;
mod direct;
mod discard;
mod door;
mod encode;
mod fail;
pub(crate) mod forward;
mod hedge;
mod keeping;
mod leftover;
mod own;
mod phases;
mod purge;
mod record;
mod refresh;
mod respond;
mod stored;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use pingora_cache::key::HashBinary;
use pingora_cache::storage::HitHandler;
use pingora_cache::{CacheKey, CacheMeta, ForcedFreshness, RespCacheable};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, RangeType, Session};

pub use ctx::{Ctx, Plan};
use door::Begun;
pub use door::Door;
use phases::{answered, close, is_interim};

use crate::snapshot::Snapshot;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Outcome;

/// Pingora's application: routes requests by the snapshot in force. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway {
    /// The configuration in force.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Counters of the process.
    pub metrics: Arc<Metrics>,
    /// Where access lines go.
    pub access: AccessLog,
    /// The process behind the gateway.
    pub control: Arc<dyn Control>,
}

/// What the gateway's own endpoints ask of the process.
pub trait Control: Send + Sync {
    /// Whether a configuration is live and every listener is bound, and the process does not drain.
    fn ready(&self) -> bool;
    /// Whether the process drains: keep-alive ends.
    fn draining(&self) -> bool;
    /// Reads the configuration again; returns the number of routes.
    fn reload(&self) -> BoxFuture<'_, Result<usize, String>>;
}

impl Gateway {
    /// Whether access lines carry the details of `debug`.
    fn debug(&self) -> bool {
        self.live.load().debug
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.live.load_full())
    }

    /// Response compression and the like come as middlewares; Pingora's modules would cost every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        if refresh::arrive(session, ctx) {
            return Ok(());
        }
        session.set_total_drain_timeout(Some(DRAIN_BODY));
        match Begun::take(session) {
            Some(begun) => *ctx = begun,
            None => self.begin(session, ctx),
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        self.admit(session, ctx).await
    }

    /// Entries are fetched anew beside the requests that get them stale.
    fn allow_spawning_subrequest(&self, _: &Session, ctx: &Ctx) -> bool {
        !refresh::is(ctx) && ctx.route().is_some_and(|route| route.chain.shell.has_caches())
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        cached::enable(session, ctx);
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, ctx: &mut Ctx) -> Result<CacheKey> {
        cached::key(session, ctx)
    }

    fn cache_vary_filter(&self, meta: &CacheMeta, _: &mut Ctx, request: &RequestHeader) -> Option<HashBinary> {
        cached::variant(meta, request)
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        _: &mut HitHandler,
        _: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(cached::found(session, meta, ctx))
    }

    fn should_serve_stale(&self, session: &mut Session, ctx: &mut Ctx, error: Option<&Error>) -> bool {
        cached::serves_stale(session, ctx, error)
    }

    fn response_cache_filter(&self, session: &Session, head: &ResponseHeader, ctx: &mut Ctx) -> Result<RespCacheable> {
        keeping::storable(session, head, ctx)
    }

    fn cache_not_modified_filter(&self, session: &Session, head: &ResponseHeader, _: &mut Ctx) -> Result<bool> {
        Ok(stored::not_modified(session.req_header(), head))
    }

    fn range_header_filter(&self, session: &mut Session, head: &mut ResponseHeader, _: &mut Ctx) -> RangeType {
        stored::range(session.req_header(), head)
    }

    /// The usual exchange without a request body is served here, and Pingora's way to the backend is not taken.
    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if direct::fits(session, ctx) { direct::serve(self, session, ctx).await } else { Ok(true) }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        attempt::peer(self, session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.backend_fd = Some(fd);
        ctx.deadline = attempt::deadline(ctx, fd, digest);
        if let (false, Some(pick), Some(address)) = (reused, &ctx.pick, peer.address().as_inet()) {
            pick.backend.report(address.ip(), Outcome::Connected);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let (Some(route), Some(pick), Some(exchange)) = (ctx.route(), &ctx.pick, &ctx.exchange) else {
            return Error::e_explain(ErrorType::InternalError, "no backend to forward to");
        };
        let forward = forward::Forward {
            route,
            backend: &pick.backend,
            client: session.req_header(),
            conn: ctx.conn.as_deref(),
            // What is stored is for clients that take no gzip as well.
            unpacks: route.unpack_gzip && ctx.cache.as_ref().is_none_or(|cached| !cached.fills),
        };
        let mut changes = forward::changes(&forward, exchange, head)?;
        let (path, asked_gzip) = (changes.path.take(), changes.asked_gzip);
        changes.apply(session.req_header().version, head)?;
        let waits = forward::waits_for_continue(&forward, head);
        ctx.sent_path = path;
        if let Some(cached) = &mut ctx.cache {
            cached.sent = crate::cache::freshness::now();
        }
        ctx.asked_gzip = asked_gzip;
        ctx.watches = None;
        // Pingora passes no interim response of an HTTP/2 backend on, so a client that waits for it would wait for ever.
        if waits && !ctx.continued {
            ctx.continued = true;
            phases::before_body(session, true);
            session.as_downstream_mut().write_continue_response().await?;
        }
        // Towards HTTP/2 no body means no call of `request_body_filter`, and an upgrade has none before its answer.
        let sent = session.as_downstream_mut().is_body_empty() || session.is_upgrade_req();
        if let (true, Some(deadline)) = (sent, &mut ctx.deadline) {
            deadline.start();
        }
        Ok(())
    }

    /// Pingora 0.9.1 turns an empty last DATA frame of HTTP/2 into a second chunk terminator on HTTP/1.1 (its issue 935), and
    /// the next request on that backend connection would pay for it.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        attempt::settle(ctx).await;
        arrive::watch(session, body, end, ctx)?;
        if end && let Some(deadline) = &mut ctx.deadline {
            deadline.start();
        }
        if end && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.came(session, head, ctx)
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        self.dress(session, head, ctx).await
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        self.pass(session, body, end, ctx).map(|()| None)
    }

    /// Trailers that nobody announced, behind a body that is being packed: what they end has to go out. Pingora writes either
    /// that or the trailers.
    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        answered(session, ctx);
        let Some(encoder) = &mut ctx.encoder else { return Ok(None) };
        let rest = encoder.feed(&[], true).or_err(ErrorType::InternalError, "packing the response")?;
        ctx.sent_bytes += rest.len() as u64;
        Ok(Some(rest))
    }

    fn fail_to_connect(&self, session: &mut Session, peer: &HttpPeer, ctx: &mut Ctx, error: Box<Error>) -> Box<Error> {
        fail::connect(self, session, ctx, peer.address().as_inet().map(SocketAddr::ip), error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        fail::midway(self, session, ctx, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        self.fail(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        self.ended(session, error, ctx);
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// How long the rest of a body that nobody wants is read, so that the connection can be kept.
const DRAIN_BODY: Duration = Duration::from_secs(10);
