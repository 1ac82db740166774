//! How executors and machines end, and what is heard of it.

mod common;

use common::{Client, PATIENCE, Seen, echo, frame, hosting, listener, machine, next, run, tell, wait_until};
use evenkeel_link::{Ended, Hosting, Outcome, Placement, Polling, StartError, cpus, start};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Halt, Input, Machine, Now};
use std::sync::mpsc::channel;
use std::time::Duration;

/// A machine that finishes what it does when it is drained, in three steps, and says goodbye to all its
/// clients.
#[derive(Default)]
struct Polite {
    clients: Vec<Endpoint>,
    steps_left: Option<u32>,
    wake_at: Option<Boot>,
}

impl Machine for Polite {
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Up { endpoint, .. } => self.clients.push(endpoint),
            Input::Drain => self.steps_left = Some(3),
            Input::Wake => self.steps_left = self.steps_left.map(|left| left - 1),
            Input::Frame { .. } => echo(now, input, out, &mut Boot::NEVER.clone()),
            Input::Down { .. } | Input::Disk(_) => {}
        }
    }

    fn end_turn(&mut self, now: Now, out: &mut Effects) {
        self.wake_at = self.steps_left.map(|_| now.boot.after(Duration::from_millis(1)));
        if self.steps_left == Some(0) {
            for client in &self.clients {
                out.outbox(*client).extend(frame(99, &vec![4; 3_000_000]));
            }
            out.drained = true;
        }
    }

    fn wake_at(&self) -> Boot {
        self.wake_at.unwrap_or(Boot::NEVER)
    }
}

fn polite(name: &str, listener: std::net::TcpListener) -> Hosting {
    let mut hosting = hosting(name, listener, |_, _, _, _| ());
    hosting.build = Box::new(|_| Box::new(Polite::default()));
    hosting
}

#[test]
fn a_drained_machine_ends_when_it_is_done_and_its_last_words_arrive() {
    let (listener, address) = listener();
    let executor = run(vec![polite("polite", listener)]);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::greeted(address)).collect();
    clients[0].ping(1, b"not yet");
    executor.drain();
    for client in &mut clients {
        assert_eq!(client.receive().expect("last words").1.len(), 3_000_000);
        assert_eq!(client.receive(), None);
    }
    assert_eq!(executor.join(), [Ended { name: "polite".to_owned(), outcome: Outcome::Drained }]);
}

#[test]
fn a_drained_machine_does_not_wait_for_ever_for_a_peer_that_does_not_read() {
    let (listener, address) = listener();
    let executor = run(vec![polite("polite", listener)]);
    let _silent: Vec<Client> = (0..5).map(|_| Client::greeted(address)).collect();
    executor.drain();
    assert_eq!(executor.join()[0].outcome, Outcome::Drained);
}

#[test]
fn a_stop_ends_every_machine_and_its_connections() {
    let ((first, first_address), (second, second_address)) = (listener(), listener());
    let hosted = vec![hosting("first", first, echo), hosting("second", second, echo)];
    let executor = run(hosted);
    let mut clients = [Client::greeted(first_address), Client::greeted(second_address)];
    clients.iter_mut().for_each(|client| client.ping(1, b"alive"));
    assert!(!executor.is_finished() && executor.ended().is_empty());
    executor.stop();
    clients.iter_mut().for_each(|client| assert_eq!(client.receive(), None));
    let ended = executor.join();
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|ended| ended.outcome == Outcome::Stopped));
}

#[test]
fn a_stop_overtakes_a_drain_that_takes_too_long() {
    let (listener, address) = listener();
    let executor = run(vec![hosting("stubborn", listener, echo)]);
    let mut client = Client::greeted(address);
    executor.drain();
    client.ping(1, b"it never says that it is drained");
    executor.stop();
    assert_eq!(executor.join()[0].outcome, Outcome::Stopped);
}

#[test]
fn a_halted_machine_says_nothing_more_and_its_neighbour_goes_on() {
    let ((bad, bad_address), (good, good_address)) = (listener(), listener());
    let mut bad = hosting("bad", bad, |now, input, out, wake_at| {
        if let Input::Frame { .. } = input {
            echo(now, input, out, wake_at);
            out.halt = Some(Halt("the disk is gone".to_owned()));
        }
    });
    let (sender, receiver) = channel();
    bad.on_end = Some(Box::new(move |ended| sender.send(ended.clone()).unwrap()));
    let executor = run(vec![bad, hosting("good", good, echo)]);
    let (mut victim, mut neighbour) = (Client::greeted(bad_address), Client::greeted(good_address));
    victim.send(&frame(1, b"an answer that must not come"));
    assert_eq!(victim.receive(), None);
    let outcome = Outcome::Halted(Halt("the disk is gone".to_owned()));
    let ended = Ended { name: "bad".to_owned(), outcome };
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), ended);
    assert_eq!(executor.ended(), [ended]);
    neighbour.ping(1, b"unmoved");
    assert!(!executor.is_finished());
}

#[test]
fn a_panic_halts_its_machine_and_no_other() {
    let ((bad, bad_address), (good, good_address)) = (listener(), listener());
    let bad = hosting("bad", bad, |_, input, _, _| {
        assert!(!matches!(input, Input::Frame { .. }), "an invariant does not hold");
    });
    let executor = run(vec![bad, hosting("good", good, echo)]);
    let (mut victim, mut neighbour) = (Client::greeted(bad_address), Client::greeted(good_address));
    victim.send(&frame(1, b"?"));
    assert_eq!(victim.receive(), None);
    wait_until("the end of the machine", || !executor.ended().is_empty());
    let Outcome::Halted(Halt(reason)) = executor.ended().remove(0).outcome else { panic!("it halted") };
    assert!(reason.contains("an invariant does not hold"), "{reason}");
    neighbour.ping(1, b"unmoved");
}

#[test]
fn a_dropped_executor_stops() {
    let (listener, address) = listener();
    let executor = run(vec![hosting("echo", listener, echo)]);
    let mut client = Client::greeted(address);
    drop(executor);
    assert_eq!(client.receive(), None);
}

#[test]
fn a_machine_is_told_to_drain_once() {
    let (listener, _) = listener();
    let (sender, receiver) = channel();
    let executor = run(vec![hosting("witness", listener, move |_, input, _, _| tell(&sender, &input))]);
    (0..3).for_each(|_| executor.drain());
    assert_eq!(next(&receiver), Seen::Drain);
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn an_executor_can_be_pinned_and_polling_does_not_change_what_happens() {
    let cpu = cpus::usable()[0];
    for polling in [Polling::Auto, Polling::Fixed(Duration::from_micros(50)), Polling::Fixed(Duration::ZERO)]
    {
        let (listener, address) = listener();
        let hosted = vec![hosting("echo", listener, echo)];
        let executor = start("pinned", Placement::Cpu(cpu), polling, hosted).unwrap();
        let mut client = Client::greeted(address);
        (0..500).for_each(|request| client.ping(request, b"steady"));
        executor.stop();
        assert_eq!(executor.join()[0].outcome, Outcome::Stopped);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "pinning is of a thread, and ends with it")]
fn who_has_little_to_do_follows_its_clients_from_cpu_to_cpu() {
    let all = cpus::usable();
    let (Some(first), Some(last)) = (all.first().copied(), all.last().copied().filter(|_| all.len() > 1))
    else {
        return;
    };
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let machine = hosting("follower", listener, move |now, input, out, wake_at| {
        let _test_is_over = sender.send(cpus::usable());
        echo(now, input, out, wake_at);
    });
    let executor = start("near", Placement::Near, Polling::Fixed(Duration::ZERO), vec![machine]).unwrap();
    let follows_to = move |cpu: usize, mut client: Client| {
        assert!(cpus::pin_to_any(cpu));
        let mut request = 0;
        wait_until("the machine's thread came here", || {
            request += 1;
            client.ping(request, b"here");
            receiver.try_iter().last() == Some(vec![cpu])
        });
        client
    };
    let there_and_back = std::thread::spawn(move || {
        let client = follows_to(last, Client::greeted(address));
        let client = follows_to(first, client);
        follows_to(last, client);
    });
    there_and_back.join().unwrap();
    executor.stop();
    assert_eq!(executor.join()[0].outcome, Outcome::Stopped);
}

#[test]
fn a_cpu_that_does_not_exist_and_a_maker_that_panics_are_start_errors() {
    let hosted = vec![hosting("echo", listener().0, echo)];
    let error = start("nowhere", Placement::Cpu(100_000), Polling::Auto, hosted).unwrap_err();
    assert!(matches!(error, StartError::Thread { .. }), "{error}");
    let mut broken = hosting("broken", listener().0, echo);
    broken.build = Box::new(|_| panic!("it cannot be built"));
    let error = start("broken", Placement::Unpinned, Polling::Auto, vec![broken]).unwrap_err();
    assert!(error.to_string().contains("it cannot be built"), "{error}");
}

#[test]
fn what_is_sent_in_one_turn_to_many_goes_to_each() {
    let (listener, address) = listener();
    let mut clients = Vec::new();
    let mut hosted = hosting("broadcast", listener, |_, _, _, _| ());
    hosted.build = Box::new(move |_| {
        let step = move |_: Now, input: Input<'_>, out: &mut Effects, _: &mut Boot| match input {
            Input::Up { endpoint, .. } => clients.push(endpoint),
            Input::Down { endpoint } => clients.retain(|other| *other != endpoint),
            Input::Frame { header, body, .. } => {
                for client in &clients {
                    out.forward(*client, header, body, header.body_checksum);
                }
            }
            Input::Disk(_) | Input::Wake | Input::Drain => {}
        };
        Box::new(machine(step, Boot::NEVER))
    });
    let _executor = run(vec![hosted]);
    let mut connected: Vec<Client> = (0..30).map(|_| Client::greeted(address)).collect();
    connected[7].send(&frame(5, b"to all"));
    for client in &mut connected {
        let (header, body) = client.receive().unwrap();
        assert_eq!((header.kind, &body[..]), (Kind::Get, &b"to all"[..]));
    }
}
