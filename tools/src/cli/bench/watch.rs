//! Looking at the storage cores while a load runs: does one of them write a checkpoint?

use crate::cli::{Failed, failed};
use evenkeel_bench::phases::Look;
use evenkeel_client::Client;
use evenkeel_wire::message::status::StatusAnswer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often to look: the shortest checkpoint that is told well takes some of these.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a core may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A thread that looks. It ends when this is dropped, or nobody takes its looks any more.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at all storage cores that `client`'s router knows, over and over.
    #[allow(clippy::disallowed_methods, reason = "a load generator has a thread that looks at its servers")]
    pub(super) fn start(client: Client) -> Result<(Self, Receiver<Look>), Failed> {
        let nodes = client.topology().send()?.nodes;
        let cores = nodes.iter().flat_map(|node| &node.cores).map(ToString::to_string);
        let cores: Vec<String> = cores.collect();
        let (looks, taken) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("watch".to_owned());
        let thread = thread.spawn(move || watch(&client, &cores, &looks, &stopped)).map_err(failed)?;
        Ok((Self { stop, thread: Some(thread) }, taken))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a load generator measures real time")]
fn watch(client: &Client, cores: &[String], looks: &Sender<Look>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        // A core that is down writes no checkpoint; what it had completed is counted when it is back.
        let logs = cores.iter().filter_map(|core| {
            match client.status_of(core.clone()).deadline(ANSWER_WITHIN).send() {
                Ok(StatusAnswer::Storage(status)) => Some(status.log),
                Ok(StatusAnswer::Memds(_) | StatusAnswer::Router(_)) | Err(_) => None,
            }
        });
        let (running, completed) = logs.fold((false, 0), |(running, completed), log| {
            (running || log.checkpointing, completed + log.checkpoints)
        });
        if looks.send(Look { asked, answered: Instant::now(), running, completed }).is_err() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
