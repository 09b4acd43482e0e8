//! Several attempts at a time: a request whose backend is slow goes to another one as well, and the first good head wins.
//!
//! A head of 5xx is kept back while another attempt is under way, and given when none comes to a better end. An attempt that
//! fails meanwhile counts against its backend, as always; one that is given up says nothing of it: its connection is closed, its
//! place is free. When the last one fails, it is a failed attempt like any other. Interim heads pass at once while one backend
//! is asked; of several, those of the winner go before its response.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Method, Version};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep_until};

use super::arrive::Facts;
use super::ctx::Ctx;
use super::direct::{self, Answer};
use super::{Gateway, attempt as attempts, fail, is_interim};
use crate::config::HEDGED;
use crate::telemetry::metrics::Hedged;
use crate::upstream::direct::Connection;
use crate::upstream::{Backend, Cause, Hedge, NoHedge, Outcome, Pick, Unresolved};

/// When this request may go to another backend as well; `None` for never.
pub fn wanted(ctx: &Ctx) -> Option<Hedge> {
    let hedge = ctx.route()?.upstream.hedge()?;
    let method = ctx.exchange.as_ref()?.method.as_str();
    (HEDGED.contains(&method) && ctx.hedges < hedge.most).then_some(hedge)
}

/// Asks the chosen backend, others when it is slow, and gives the head of the one whose response is passed on.
///
/// # Errors
/// When no attempt has led to a head; whether there is to be another one is decided.
pub async fn ask(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, hedge: Hedge) -> Result<Answer> {
    let mut race = Race::default();
    if let Some(pick) = ctx.pick.take() {
        race.enter(session, ctx, pick)?;
    }
    let mut next = Some(Instant::now() + hedge.after);
    let ended = loop {
        let (place, told) = tokio::select! {
            biased;
            Some(told) = race.running.next() => told,
            gone = direct::gone(session) => break Err((0, Broke::Midway(gone))),
            () = at(next) => {
                let goes_on = race.another(gateway, session, ctx)? && ctx.hedges < hedge.most;
                next = goes_on.then(|| Instant::now() + hedge.after);
                continue;
            }
        };
        match told {
            Ok((attempt, head)) if is_interim(&head) => {
                if !race.is_alone() {
                    race.keep_interim(place, *head);
                } else if let Err(error) = direct::interim(gateway, session, ctx, head).await {
                    break Err((place, Broke::Midway(error)));
                }
                race.run(attempt);
            }
            Ok((attempt, head)) => match race.decide(ctx, place, attempt, head) {
                Some(won) => break Ok(won),
                None => continue,
            },
            Err(broke) => match race.lose(ctx, place, broke) {
                Some(ended) => break ended,
                None => continue,
            },
        }
    };
    race.count(gateway, ctx, &ended);
    match ended {
        Ok((place, attempt, head)) => race.win(gateway, session, ctx, (place, attempt, head)).await,
        Err((place, broke)) => {
            ctx.pick = race.leave(place);
            Err(broke.judge(gateway, session, ctx))
        }
    }
}

/// The attempts for one request that are under way.
#[derive(Default)]
struct Race {
    entries: Vec<Entry>,
    running: FuturesUnordered<BoxFuture<'static, (usize, Told)>>,
    /// A head of 5xx, in case no better one comes.
    kept: Option<Won>,
}

/// What an attempt leaves in the race while it is under way.
struct Entry {
    /// `None` when it has failed.
    pick: Option<Pick>,
    sent_path: Option<String>,
    asked_gzip: bool,
    interim: Vec<ResponseHeader>,
}

type Told = Result<(Attempt, Box<ResponseHeader>), Broke>;
type Won = (usize, Attempt, Box<ResponseHeader>);
/// Who won, or what the last attempt failed of.
type Ended = Result<Won, (usize, Broke)>;

impl Race {
    /// Sends the request to one more backend.
    fn enter(&mut self, session: &Session, ctx: &mut Ctx, pick: Pick) -> Result<()> {
        let wire = direct::request(session, ctx, &pick.backend)?;
        let attempt = Attempt {
            place: self.entries.len(),
            backend: pick.backend.clone(),
            wire,
            method: session.req_header().method.clone(),
            client: session.req_header().version,
            limit: attempts::header_limit(ctx),
            end: ctx.end(),
            connection: None,
            may_reuse: ctx.replays == 0,
            reused: false,
            due: None,
        };
        let (sent_path, asked_gzip) = (ctx.sent_path.take(), ctx.asked_gzip);
        self.entries.push(Entry { pick: Some(pick), sent_path, asked_gzip, interim: Vec::new() });
        self.run(attempt);
        Ok(())
    }

    fn run(&mut self, attempt: Attempt) {
        self.running.push(Box::pin(attempt.run()));
    }

    /// Sends the request to another backend, if there is one and the route has that to give; whether it did.
    fn another(&mut self, gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Result<bool> {
        let (Some(route), Some(exchange)) = (ctx.route().cloned(), &mut ctx.exchange) else { return Ok(false) };
        let mut asked = ctx.tried;
        self.entries.iter().filter_map(|entry| entry.pick.as_ref()).for_each(|pick| asked.add(pick.index));
        let facts = Facts { head: session.req_header(), exchange };
        let pick = match route.upstream.hedged(&facts, &asked) {
            Ok(pick) => pick,
            Err(why) => {
                let word = match why {
                    NoHedge::Nowhere => Hedged::Nowhere,
                    NoHedge::OverBudget => Hedged::OverBudget,
                };
                gateway.metrics.hedged(&route.name, word, 1);
                return Ok(false);
            }
        };
        exchange.attempts += 1;
        ctx.hedges += 1;
        gateway.metrics.hedged(&route.name, Hedged::Sent, 1);
        self.enter(session, ctx, pick)?;
        Ok(true)
    }

    /// Whether one backend was asked so far.
    fn is_alone(&self) -> bool {
        self.entries.len() == 1
    }

    fn keep_interim(&mut self, place: usize, head: ResponseHeader) {
        let interim = &mut self.entries[place].interim;
        if interim.len() < MOST_INTERIM {
            interim.push(head);
        }
    }

    /// Whether this head is the one, or is kept back because a better one may come.
    fn decide(&mut self, ctx: &Ctx, place: usize, attempt: Attempt, head: Box<ResponseHeader>) -> Option<Won> {
        if !head.status.is_server_error() {
            return Some((place, attempt, head));
        }
        match self.kept {
            Some(_) => self.pass_over(ctx, place, &head),
            None => self.kept = Some((place, attempt, head)),
        }
        if self.running.is_empty() { self.kept.take() } else { None }
    }

    /// An attempt failed: the others go on. The last one is returned, or what was kept for that case.
    fn lose(&mut self, ctx: &mut Ctx, place: usize, broke: Broke) -> Option<Ended> {
        if self.running.is_empty() {
            return Some(match self.kept.take() {
                Some(kept) => {
                    self.fail(ctx, place, &broke);
                    Ok(kept)
                }
                None => Err((place, broke)),
            });
        }
        self.fail(ctx, place, &broke);
        None
    }

    /// Tells the backend's guard.
    fn fail(&mut self, ctx: &mut Ctx, place: usize, broke: &Broke) {
        let (Some(route), Some(mut pick)) = (ctx.route().cloned(), self.leave(place)) else { return };
        if let Broke::Connect(address, _) = broke {
            pick.backend.report(*address, Outcome::ConnectFailed);
        }
        route.upstream.failed(&mut pick, broke.cause());
        ctx.tried.add(pick.index);
    }

    fn leave(&mut self, place: usize) -> Option<Pick> {
        self.entries.get_mut(place).and_then(|entry| entry.pick.take())
    }

    /// Counts what came of the attempts beside the first one.
    fn count(&self, gateway: &Gateway, ctx: &Ctx, ended: &Ended) {
        let (Some(route), more @ 1..) = (ctx.route(), self.entries.len() - 1) else { return };
        let won = usize::from(matches!(ended, Ok((place, ..)) if *place > 0));
        gateway.metrics.hedged(&route.name, Hedged::Won, won);
        gateway.metrics.hedged(&route.name, Hedged::Lost, more - won);
    }

    /// The response of this attempt is passed on; what becomes of the others is nothing.
    async fn win(mut self, gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, won: Won) -> Result<Answer> {
        let (place, attempt, head) = won;
        drop(std::mem::take(&mut self.running));
        if let Some((place, _, head)) = self.kept.take() {
            self.pass_over(ctx, place, &head);
        }
        let entry = &mut self.entries[place];
        let interim = std::mem::take(&mut entry.interim);
        (ctx.pick, ctx.sent_path, ctx.asked_gzip) = (entry.pick.take(), entry.sent_path.take(), entry.asked_gzip);
        drop(self);
        for head in interim {
            direct::interim(gateway, session, ctx, Box::new(head)).await?;
        }
        match attempt.connection {
            Some(connection) => Ok(Answer { backend: attempt.backend, connection, reused: attempt.reused, head }),
            None => Error::e_explain(ErrorType::InternalError, "a head without a connection"),
        }
    }

    /// A head of 5xx that was not needed: its backend has failed nevertheless.
    fn pass_over(&mut self, ctx: &Ctx, place: usize, head: &ResponseHeader) {
        if let (Some(route), Some(mut pick)) = (ctx.route(), self.leave(place)) {
            route.upstream.answered(&mut pick, head.status.as_u16());
        }
    }
}

/// One attempt, which knows nothing of the client.
struct Attempt {
    place: usize,
    backend: Arc<Backend>,
    wire: BytesMut,
    method: Method,
    client: Version,
    limit: Option<Duration>,
    end: Option<std::time::Instant>,
    connection: Option<Connection>,
    may_reuse: bool,
    reused: bool,
    due: Option<Instant>,
}

impl Attempt {
    /// The next head of the response.
    async fn run(mut self) -> (usize, Told) {
        let place = self.place;
        let head = self.next().await;
        (place, head.map(|head| (self, head)))
    }

    async fn next(&mut self) -> Result<Box<ResponseHeader>, Broke> {
        let first = self.connection.is_none();
        let head = match first {
            true => self.send().await,
            false => self.head().await,
        };
        match head {
            // The kept connection was dead; these methods are harmless.
            Err(Broke::Midway(error)) if first && fail::is_dead(&error, self.reused) => {
                (self.may_reuse, self.connection) = (false, None);
                self.send().await
            }
            head => head,
        }
    }

    async fn send(&mut self) -> Result<Box<ResponseHeader>, Broke> {
        let address = self.backend.address().await.map_err(Broke::Unresolved)?;
        let kept = if self.may_reuse { self.backend.kept(address) } else { None };
        self.reused = kept.is_some();
        let connection = match kept {
            Some(kept) => kept,
            None => {
                let opened = self.backend.open(address, self.end).await;
                let opened = opened.map_err(|error| Broke::Connect(address.ip(), error.into_up()))?;
                self.backend.report(address.ip(), Outcome::Connected);
                opened
            }
        };
        self.connection.insert(connection).send(&self.wire).await.map_err(Broke::Midway)?;
        let limit = self.limit.map(|limit| Instant::now() + limit);
        self.due = limit.into_iter().chain(self.end.map(Instant::from_std)).min();
        self.head().await
    }

    async fn head(&mut self) -> Result<Box<ResponseHeader>, Broke> {
        let Some(connection) = &mut self.connection else {
            return Err(Broke::Midway(Error::explain(ErrorType::InternalError, "no connection to read from")));
        };
        tokio::select! {
            biased;
            head = connection.head(&self.method, self.client) => head.map_err(Broke::Midway),
            late = direct::overdue(self.due) => Err(Broke::Midway(late)),
        }
    }
}

/// Where an attempt ended.
enum Broke {
    /// The backend's name has no address.
    Unresolved(Unresolved),
    /// No connection to this address.
    Connect(IpAddr, Box<Error>),
    /// No head on the connection, or the client has gone.
    Midway(Box<Error>),
}

impl Broke {
    fn cause(&self) -> Cause {
        match self {
            Broke::Unresolved(_) | Broke::Connect(..) => Cause::Connect,
            Broke::Midway(error) => fail::cause(error),
        }
    }

    /// The attempt was the last one: its error, with the decision about the next.
    fn judge(self, gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Box<Error> {
        match self {
            Broke::Unresolved(why) => fail::connect(gateway, session, ctx, None, fail::unresolved(&why)),
            Broke::Connect(address, error) => fail::connect(gateway, session, ctx, Some(address), error),
            Broke::Midway(error) => fail::midway(gateway, session, ctx, error, false),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Interim heads of one backend that wait for its response.
const MOST_INTERIM: usize = 8;
