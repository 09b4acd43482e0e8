//! What the entry points hand requests to: a choice between two ways through the same phases.
//!
//! Pingora's way does everything. Its futures are made for that: 16 KiB of state that is written anew for each request. A
//! request that ends with its head, on a route that needs nothing of it (no cache, no second attempts, backends of HTTP/1
//! without TLS), goes through the phases here, one after the other; see `direct` for the way to the backend.

use std::cell::RefCell;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::custom::server::Session as Request;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::{HttpProxy, Session};
use tokio::sync::watch;

use super::{Ctx, Gateway, Plan, direct};
use crate::entry::App;

/// Answers requests.
pub struct Door {
    gateway: Gateway,
    pingora: Arc<HttpProxy<Gateway>>,
}

impl Door {
    /// Both ways; `pingora` is made of the same gateway.
    pub fn new(gateway: Gateway, pingora: HttpProxy<Gateway>) -> Door {
        Door { gateway, pingora: Arc::new(pingora) }
    }

    /// The phases of a request that goes without Pingora's way.
    async fn serve(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        if self.gateway.admit(session, ctx).await? || !direct::serve(&self.gateway, session, ctx).await? {
            return Ok(());
        }
        Error::e_explain(ErrorType::InternalError, "a route that changed its mind about the way of its requests")
    }
}

impl App for Door {
    async fn answer(&self, request: Box<dyn Request>, shutdown: &watch::Receiver<bool>) {
        let mut ctx = Ctx::new(self.gateway.live.load_full());
        let mut lent = Lent::of(request);
        let session = lent.session();
        self.gateway.begin(session, &mut ctx);
        if !goes_here(session, &ctx) {
            let mut request = lent.give_back();
            Begun::leave(&mut request, ctx);
            self.pingora.process_new_http(request, shutdown).await;
            return;
        }
        let failed = self.serve(session, &mut ctx).await.err();
        if let Some(error) = &failed {
            self.gateway.fail(session, error, &mut ctx).await;
        }
        self.gateway.ended(session, failed.as_deref(), &mut ctx);
        if failed.is_none() {
            // The client may be gone by now.
            let _ = session.as_downstream_mut().finish_body().await;
        }
    }

    async fn take(&self, session: ServerSession, shutdown: &watch::Receiver<bool>) -> Option<ReusedHttpStream> {
        self.pingora.process_new_http(session, shutdown).await
    }
}

/// Whether nothing on the way of this request is Pingora's to do.
fn goes_here(session: &mut Session, ctx: &Ctx) -> bool {
    match &ctx.plan {
        Plan::Route(route) => {
            route.upstream.is_direct() && !route.chain.shell.has_caches() && direct::fits(session, ctx)
        }
        Plan::Own(_) | Plan::Reply(..) => true,
        Plan::Unknown => false,
    }
}

/// What is known of a request by the time that it turns out to be Pingora's. Travels in its head.
#[derive(Clone)]
pub struct Begun(Arc<Mutex<Option<Ctx>>>);

impl Begun {
    fn leave(request: &mut ServerSession, ctx: Ctx) {
        request.req_header_mut().extensions_mut().insert(Begun(Arc::new(Mutex::new(Some(ctx)))));
    }

    /// Takes it off the request, if there is something.
    pub fn take(session: &mut Session) -> Option<Ctx> {
        if session.req_header().extensions.is_empty() {
            return None;
        }
        let Begun(ctx) = session.req_header_mut().extensions_mut().remove()?;
        ctx.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One of Pingora's sessions around a request. It is used again, since nothing here leaves a trace in it.
struct Lent(Option<Session>);

thread_local! {
    static SPARE: RefCell<Vec<Session>> = const { RefCell::new(Vec::new()) };
}

impl Lent {
    fn of(request: Box<dyn Request>) -> Lent {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        // A session of Pingora's begins with a stream; that of the request takes its place.
        let mut session = spare.unwrap_or_else(|| Session::new_h1(Box::new(tokio::io::duplex(1).0)));
        *session.downstream_session = ServerSession::new_custom(request);
        Lent(Some(session))
    }

    fn session(&mut self) -> &mut Session {
        self.0.as_mut().expect("it is given back at the end only")
    }

    /// Takes the request out again.
    fn give_back(mut self) -> ServerSession {
        mem::replace(&mut *self.session().downstream_session, nobody())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut session) = self.0.take() else { return };
        *session.downstream_session = nobody();
        // At the end of a thread there is nobody to keep it for.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST_SPARE {
                spare.push(session);
            }
        });
    }
}

/// No request at all.
fn nobody() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

/// Sessions that a thread keeps for later requests.
const MOST_SPARE: usize = 64;
