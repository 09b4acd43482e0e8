//! Following channels: messages of other gateways, across lost connections.

use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::link;
use super::pause::Pause;
use super::settings::Settings;

/// What comes on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The channels are followed from here on; what was sent before, since the last message, may be missing.
    Joined,
    /// The connection was lost: nothing comes until [`News::Joined`].
    Lost,
    /// A message.
    Message {
        /// The channel it was sent to.
        channel: String,
        /// What it says.
        payload: Vec<u8>,
    },
}

/// News as they come; dropping it ends the following.
pub struct Subscription(mpsc::Receiver<News>);

impl Subscription {
    /// Waits for the next news. Never ends while there is a runtime to follow on; `None` without one.
    pub async fn next(&mut self) -> Option<News> {
        self.0.recv().await
    }
}

/// News that wait to be read before the sender has to.
const WAITING: usize = 1024;
/// How often the server is asked whether it is still there.
const ASK: Duration = Duration::from_secs(5);

pub(super) fn subscribe(settings: Settings, handle: Option<&Handle>, channels: Vec<String>) -> Subscription {
    let (news, receiver) = mpsc::channel(WAITING);
    if let Some(handle) = handle {
        handle.spawn(follow(settings, channels, news));
    }
    Subscription(receiver)
}

async fn follow(settings: Settings, channels: Vec<String>, news: mpsc::Sender<News>) {
    let mut pause = Pause::new();
    loop {
        tokio::select! {
            () = sleep(pause.next()) => {}
            () = news.closed() => return,
        }
        let joining = async {
            let mut subscriber = link::subscriber(&settings).await?;
            subscriber.subscribe(&channels).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(subscriber)
        };
        let joined = timeout(settings.connect_timeout, joining).await;
        let subscriber = match joined {
            Ok(Ok(subscriber)) => subscriber,
            Ok(Err(why)) => {
                log::debug!("Cannot follow channels of Redis at {settings}: {why}");
                continue;
            }
            Err(_) => continue,
        };
        pause.connected();
        let (mut sink, mut messages) = subscriber.split();
        let mut asking = interval(ASK);
        asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if news.send(News::Joined).await.is_err() {
            return;
        }
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = news.closed() => return,
                _ = asking.tick() => match timeout(settings.connect_timeout, sink.ping::<()>()).await {
                    Ok(Ok(())) => continue,
                    _ => None,
                },
            };
            let Some(message) = message else { break };
            let channel = message.get_channel_name().to_owned();
            let payload = message.get_payload_bytes().to_vec();
            if news.send(News::Message { channel, payload }).await.is_err() {
                return;
            }
        }
        if news.send(News::Lost).await.is_err() {
            return;
        }
    }
}
