//! The entry points of the process: bound together or not at all, served, and drained.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::EntryPoints;
use crate::entry::{self, Count};

/// An entry point whose address is ours.
pub struct Bound {
    /// As the configuration and the metrics call it.
    pub name: &'static str,
    /// Takes its connections.
    pub listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Binds every entry point.
///
/// # Errors
/// When one of the addresses cannot be bound; the others are free again then.
pub fn bind(points: &EntryPoints) -> Result<Vec<Bound>> {
    [("web", &points.web)].into_iter().map(|(name, point)| bound(name, &point.address)).collect()
}

fn bound(name: &'static str, text: &str) -> Result<Bound> {
    let address: SocketAddr = text.parse().with_context(|| format!("entry point {name}: {text}"))?;
    let listener = entry::bind(address).with_context(|| format!("entry point {name}: cannot listen on {text}"))?;
    let address = listener.local_addr().context("asking for the bound address")?;
    Ok(Bound { name, listener, address })
}

/// The entry points that serve.
#[derive(Default)]
pub struct Points(Vec<Point>);

struct Point {
    name: &'static str,
    count: Arc<Count>,
    accepting: JoinHandle<()>,
}

impl Points {
    /// Adds one that accepts connections until its task ends.
    pub fn add(&mut self, name: &'static str, count: Arc<Count>, accepting: JoinHandle<()>) {
        self.0.push(Point { name, count, accepting });
    }

    /// Names and open connections of each.
    pub fn counts(&self) -> Vec<(&'static str, Arc<Count>)> {
        self.0.iter().map(|point| (point.name, point.count.clone())).collect()
    }

    /// Resolves when none accepts any more, which they were told before.
    pub async fn closed(&mut self) {
        for point in &mut self.0 {
            let _ = (&mut point.accepting).await;
        }
    }

    /// Open connections of all.
    pub fn open(&self) -> usize {
        self.0.iter().map(|point| point.count.open()).sum()
    }

    /// Resolves when no connection is open; none is added, as no entry point accepts.
    pub async fn none_left(&self) {
        for point in &self.0 {
            point.count.none_left().await;
        }
    }
}
