//! Assembles the process: configuration, entry points, providers, signals, drain.

mod banner;
mod birth;
mod channel;
pub mod control;
mod leave;
mod life;
mod notify;
mod points;
mod process;
mod reap;
mod signals;
mod upgrade;
mod workers;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{Config, EntryPoint, Examined, Gateway as GatewayConfig, Source};
use crate::crypto;
use crate::entry::{self, Bounds, Deadlines, Entry, Moment, Refused, Secure, Settings};
use crate::exchange::Reason;
use crate::proxy::Gateway;
use crate::snapshot::head_limits;
use crate::telemetry::log::{self as logging, LogHandle};
use crate::telemetry::metrics::Upgraded;
use crate::tls::ocsp;
use crate::upstream::{most_kept, retry};
use birth::Birth;
use control::{Caller, Control};
use life::{End, Life};
use notify::Notify;
use points::{Bound, Leaving, Points};
use process::Process;
use signals::Signals;
use upgrade::Program;
use workers::Workers;

/// Runs the gateway until it is told to stop, or until another process has taken its place.
///
/// # Errors
/// When the configuration is refused or an address cannot be bound. Nothing was served then.
pub fn run(source: Source, examined: impl Into<Examined>) -> Result<()> {
    let examined = examined.into();
    // First of all: the program is known by its name, and descriptors were passed by number.
    let program = Program::of_process();
    let birth = Birth::take()?;
    crypto::install();
    banner::greet();
    let log = logging::init(&process::log_settings(&examined.loaded.config.gateway));
    report_panics();
    let workers = Workers::of_host(&examined.loaded.config.gateway.workers);
    let runtime = runtime(workers.threads).context("starting the threads")?;
    let served = runtime.block_on(serve(source, examined, log.clone(), workers, Origin { program, birth }));
    log.flush();
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

/// Where the process comes from.
struct Origin {
    program: std::io::Result<Program>,
    birth: Birth,
}

/// Threads that may take work from each other, also where there is only one: measured, tokio's current-thread runtime costs
/// more CPU a request.
fn runtime(threads: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name("goma").enable_all().build()
}

async fn serve(source: Source, examined: Examined, log: LogHandle, workers: Workers, origin: Origin) -> Result<()> {
    let Origin { program, mut birth } = origin;
    let mut signals = Signals::install();
    let notify = Arc::new(Notify::of_process());
    tokio::spawn(reap::orphans());
    let process = Process::start(source, examined, log.clone()).map_err(|report| anyhow!("{report}"))?;
    if let Some(secrets) = birth.tickets()
        && !process.certificates().tickets().adopt(&secrets)
    {
        log::info!("The process before this one had no session tickets that can be resumed");
    }
    let config = process.config();
    banner::routes(&config);
    log::info!(threads = workers.threads, acceptors = workers.acceptors; "Threads: {workers}");
    let bound = points::bind(&config.gateway.entry_points, &mut birth)?;
    process.begin(!birth.succeeds());
    for unused in birth.unused() {
        log::warn!("The socket {unused} was handed over, but no entry point listens there: closed");
    }
    let (stop, stopping) = watch::channel(false);
    let (drain, draining) = watch::channel(false);
    let moment = Moment::default();
    let app = Arc::new(proxy(&process, &config.gateway, &log, workers.threads));
    birth.may_serve().await?;
    process.ready();
    let mut points = Points::default();
    let mut status = format!("Serving {} routes on", config.routes.len());
    for point in bound {
        let entry = entry(&process, &config.gateway, &point, app.clone(), draining.clone(), moment.clone());
        log::info!(entry_point = point.name, address:% = point.address; "Listening");
        let _ = write!(status, " {} {}", point.name, point.address);
        points.open(point, entry, workers.acceptors, &stopping);
    }
    birth.serves().await.context("standard error")?;
    if birth.succeeds() {
        process.metrics().upgraded(Upgraded::Succeeded);
        log::info!("Took over from the process before this one");
    }
    notify.ready(&status);
    tokio::spawn(stapling(&process));
    let ticking = tokio::spawn(process::tick(process.clone(), points.counts()));
    let alive = tokio::spawn({
        let notify = notify.clone();
        async move { notify.keep_alive().await }
    });
    let (callers, listening) = callers(&process, &points);
    let elders = birth.elders();
    let mut life = Life { process: process.clone(), notify: notify.clone(), program, elders, callers, status };
    let end = life.live(&mut signals, || points.estate()).await;

    // From here on nobody can find this process, and the one that serves is the only one.
    listening.abort();
    let shutdown = process.config().gateway.shutdown.clone();
    let grace = match &end {
        End::Stop => {
            notify.stopping(shutdown.delay + shutdown.grace);
            process.stop();
            log::info!(delay:? = shutdown.delay, grace:? = shutdown.grace; "Stopping");
            signals.sleep_unless_hurried(shutdown.delay).await;
            shutdown.grace
        }
        End::Replaced(..) => process.config().gateway.upgrade.grace,
    };
    let (leaving, idle) = match &end {
        End::Stop => (Leaving::Nobody, DRAIN_IDLE),
        End::Replaced(..) => (Leaving::Successor, DRAIN_IDLE_REPLACED),
    };
    process.drain();
    let _ = stop.send(true);
    let closed = points.close(leaving).await;
    let receipt = leave::announce(end, grace).await;
    moment.set(idle.min(grace));
    let _ = drain.send(true);
    signals.drained(&closed, grace, shutdown.grace).await;
    alive.abort();
    ticking.abort();
    receipt.give(closed.tally(process.metrics().open_streams())).await;
    Ok(())
}

/// Answers callers; those that want an upgrade come out here.
fn callers(process: &Arc<Process>, points: &Points) -> (mpsc::Receiver<Caller>, JoinHandle<()>) {
    let (asked, callers) = mpsc::channel(1);
    let (process, counts) = (process.clone(), points.counts());
    let tally = move || points::tally(&counts, process.metrics().open_streams());
    let listening = tokio::spawn(async move {
        match Control::open() {
            Ok(control) => control.serve(asked, tally).await,
            Err(error) => {
                log::error!(error:% = error; "`goma upgrade` will not find this process");
                // As long as this end is open, waiting for a caller is no mistake.
                std::future::pending::<()>().await;
                drop(asked);
            }
        }
    });
    (callers, listening)
}

fn entry(
    process: &Arc<Process>,
    gateway: &GatewayConfig,
    point: &Bound,
    app: Arc<HttpProxy<Gateway>>,
    shutdown: watch::Receiver<bool>,
    drain_idle: Moment,
) -> Entry<HttpProxy<Gateway>> {
    let metrics = process.metrics().clone();
    Entry {
        name: point.name.into(),
        app,
        settings: entry_settings(gateway, self::point(gateway, point.name)),
        secure: point.is_secure().then(|| secure(process)),
        http2: http2(gateway),
        shutdown,
        drain_idle,
        count: Arc::default(),
        refused: Arc::new(move |refused: &Refused<'_>| {
            metrics.refused(Reason::of_refusal(refused.refusal.status));
            log::debug!(entry_point = refused.entry_point, peer:% = refused.peer; "Refused a request: {}", refused.refusal);
        }),
    }
}

fn secure(process: &Process) -> Secure {
    let handshakes = process.metrics().handshakes();
    Secure { keeper: process.certificates().clone(), ended: Arc::new(move |ended| handshakes[ended as usize].inc()) }
}

/// Keeps OCSP responses fresh; never ends.
fn stapling(process: &Process) -> impl Future<Output = ()> + Send + 'static {
    let counters = process.metrics().ocsp();
    ocsp::keep::run(process.certificates().clone(), move |heard| counters[heard as usize].inc())
}

fn proxy(process: &Arc<Process>, gateway: &GatewayConfig, log: &LogHandle, threads: usize) -> HttpProxy<Gateway> {
    let conf = ServerConf {
        threads,
        upstream_keepalive_pool_size: most_kept(gateway.transport.max_idle_conns).div_ceil(threads),
        max_retries: retry::MOST_ATTEMPTS + retry::MAX_REPLAYS,
        ..ServerConf::default()
    };
    let app = Gateway {
        live: process.live().clone(),
        metrics: process.metrics().clone(),
        access: log.access(),
        control: Arc::new(process.clone()),
    };
    let mut proxy = HttpProxy::new(app, Arc::new(conf));
    proxy.handle_init_modules();
    proxy
}

fn http2(gateway: &GatewayConfig) -> h2::server::Builder {
    let mut options = h2::server::Builder::new();
    options
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(gateway.limits.header_bytes).unwrap_or(u32::MAX))
        // One stalled upload must not take the window of all others on the connection.
        .initial_window_size(256 << 10)
        .initial_connection_window_size(100 * (256 << 10));
    options
}

/// The settings of an entry point of this name.
fn point<'a>(gateway: &'a GatewayConfig, name: &str) -> &'a EntryPoint {
    if name == "web" { &gateway.entry_points.web } else { &gateway.entry_points.web_secure }
}

fn entry_settings(gateway: &GatewayConfig, point: &EntryPoint) -> Settings {
    let bound = |most: u32| (most > 0).then_some(most as usize);
    Settings {
        head: head_limits(gateway),
        deadlines: deadlines(gateway),
        bounds: Bounds {
            total: bound(point.max_connections.unwrap_or(gateway.limits.max_connections)),
            by_address: bound(point.max_connections_per_address.unwrap_or(gateway.limits.max_connections_per_address)),
        },
    }
}

/// While draining, how long an idle connection may still bring a request. Closing it always meets some request on its way;
/// the longer the wait, the fewer connections are left that could have one.
const DRAIN_IDLE: Duration = Duration::from_secs(2);
/// The same where nobody waits for the process to end.
const DRAIN_IDLE_REPLACED: Duration = Duration::from_secs(10);

/// Goma has no limits unless configured; here a client that stops moving is let go.
fn deadlines(gateway: &GatewayConfig) -> Deadlines {
    let timeouts = &gateway.timeouts;
    let header = Some(gateway.limits.header_timeout).filter(|limit| !limit.is_zero());
    Deadlines {
        head: match (header, timeouts.read) {
            (Some(header), Some(read)) => Some(header.min(read)),
            (header, read) => header.or(read),
        },
        idle: timeouts.idle.or(timeouts.read).or(Some(IDLE)),
        read: timeouts.read,
        write: timeouts.write,
        stall: Some(entry::STALL),
    }
}

const IDLE: Duration = Duration::from_secs(60);

/// A panic ends one connection, not the process; it must not go unseen.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::error!("A task ended by a mistake of ours: {panic}")));
}

/// What a change of the configuration cannot do without a restart.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new) = (&old.gateway, &new.gateway);
    let changed = [
        ("gateway.entryPoints", old.entry_points != new.entry_points),
        ("gateway.timeouts", old.timeouts != new.timeouts),
        ("gateway.limits", old.limits != new.limits),
        ("gateway.networking.transport.maxIdleConns", old.transport.max_idle_conns != new.transport.max_idle_conns),
        ("gateway.networking.dnsCache", old.dns_cache != new.dns_cache),
        ("gateway.workers", old.workers != new.workers),
        ("gateway.redis", old.redis != new.redis),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let (old, mut new) = (Config::default(), Config::default());
        assert_eq!(needs_restart(&old, &new), [""; 0]);
        new.gateway.transport.max_idle_conns = 7;
        new.gateway.transport.disable_compression = true;
        assert_eq!(needs_restart(&old, &new), ["gateway.networking.transport.maxIdleConns"]);
    }
}
