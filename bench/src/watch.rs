//! Looking at the storage cores while a load runs: does one of them write a checkpoint?

use crate::clock::now;
use crate::load::{receive, shake};
use crate::phases::Look;
use evenkeel_client::protocol::answer::Answer;
use evenkeel_client::protocol::connection::Connection;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::status::{LogStatus, StatusAnswer};
use evenkeel_wire::message::{access, to_owned};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often to look: the shortest checkpoint that is told well takes some of these.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a core may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A thread that looks. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at the storage cores at these addresses, over and over, for so many load threads. Each core has
    /// a connection of its own.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(cores: Vec<SocketAddr>, threads: usize) -> std::io::Result<(Self, Vec<Receiver<Look>>)> {
        let (looks, taken): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let cores = cores.into_iter().map(|address| Core { address, line: None }).collect();
        let thread = std::thread::Builder::new().name("watch".to_owned());
        let thread = thread.spawn(move || watch(cores, &looks, &stopped))?;
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

#[allow(clippy::disallowed_methods, reason = "a load generator waits in real time")]
fn watch(mut cores: Vec<Core>, looks: &[Sender<Look>], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let asked = now();
        let (mut running, mut completed) = (false, 0);
        // A core that is down writes no checkpoint; what it had completed is counted when it is back.
        for log in cores.iter_mut().filter_map(Core::ask) {
            running |= log.checkpointing;
            completed += log.checkpoints;
        }
        let look = Look { asked, answered: now(), running, completed };
        if looks.iter().all(|looks| looks.send(look).is_err()) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

struct Core {
    address: SocketAddr,
    /// The connection, unless it failed.
    line: Option<(TcpStream, Connection)>,
}

impl Core {
    /// What the core says of its log, if it says anything. A connection that failed is opened again by the
    /// next look.
    fn ask(&mut self) -> Option<LogStatus> {
        let (mut stream, mut connection) = match self.line.take() {
            Some(line) => line,
            None => shake(self.address).ok()?,
        };
        stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
        connection.request(Kind::Status, ANSWER_WITHIN, |_| ());
        stream.write_all(connection.transmit()).ok()?;
        connection.transmitted(connection.transmit().len());
        let log = loop {
            if let Some(answer) = connection.poll_answer().ok()? {
                break log_of(&answer)?;
            }
            receive(&mut stream, &mut connection).ok()?;
        };
        self.line = Some((stream, connection));
        Some(log)
    }
}

fn log_of(answer: &Answer<'_>) -> Option<LogStatus> {
    match to_owned::<StatusAnswer>(access::<StatusAnswer>(answer.body).ok()?) {
        StatusAnswer::Storage(status) => Some(status.log),
        StatusAnswer::Memds(_) | StatusAnswer::Router(_) => None,
    }
}
