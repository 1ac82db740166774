//! Faults of the random mix: what is done to a cluster, and how it is undone.

use super::TortureError;
use super::stand::Stand;
use evenkeel_wire::prng::Prng;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A storage node is killed, and started again later.
    KillNode,
    /// A router or MemDS server is killed, and started again later.
    KillOther,
    /// All storage nodes are killed at once.
    KillAllNodes,
    /// A storage node is asked to end, and started again later.
    Drain,
    /// A storage node is stopped (SIGSTOP) for a while.
    Stop,
    /// A router or MemDS server is.
    StopOther,
    /// A zone is cut off from the others, in both directions.
    CutZone,
    /// Two storage nodes cannot reach each other.
    CutPair,
    /// Packets from one process to another vanish, the other direction is well.
    OneWay,
    /// A process can send and receive little.
    Bandwidth,
    /// A storage node is killed and comes back with a disk that takes writes late.
    SlowDisk,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::KillNode,
        Self::KillOther,
        Self::KillAllNodes,
        Self::Drain,
        Self::Stop,
        Self::StopOther,
        Self::CutZone,
        Self::CutPair,
        Self::OneWay,
        Self::Bandwidth,
        Self::SlowDisk,
    ];

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name)
    }

    /// The mix of a seed: each kind is in it or not.
    #[must_use]
    pub fn mix(prng: &mut Prng) -> Vec<Self> {
        loop {
            let mix: Vec<Self> = Self::ALL.into_iter().filter(|_| prng.chance(1, 2)).collect();
            if mix.len() > 1 {
                return mix;
            }
        }
    }
}

/// What ends a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// These are started.
    Start(Vec<String>),
    /// This one goes on.
    Resume(String),
    /// These directions are mended.
    Mend(Vec<(String, String)>),
    /// This one may send what it likes.
    Widen(String),
    /// This one is killed and comes back with a good disk.
    HealDisk(String),
}

/// How long a fault lasts.
pub fn duration(prng: &mut Prng) -> Duration {
    // Shorter than a lease, a few of them, or long enough for connections to be given up.
    let range = *prng.pick(&[(100, 1500), (1500, 6000), (1500, 6000), (6000, 15_000)]);
    Duration::from_millis(range.0 + prng.below(range.1 - range.0))
}

fn both_ways(some: &[String], others: &[String]) -> Vec<(String, String)> {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one.clone(), other.clone())));
    pairs.flat_map(|(one, other)| [(one.clone(), other.clone()), (other, one)]).collect()
}

/// Does a fault to processes that nothing else is done to. None: there is no such process now.
///
/// # Errors
/// When it cannot be done.
pub fn apply(fault: Fault, stand: &mut Stand, prng: &mut Prng) -> Result<Option<Undo>, TortureError> {
    let names = stand.cluster().names();
    let names: Vec<String> = names.into_iter().filter(|name| !stand.is_touched(name)).collect();
    let (nodes, others): (Vec<String>, Vec<String>) =
        names.iter().cloned().partition(|name| name.starts_with('n'));
    let from = match fault {
        Fault::KillOther | Fault::StopOther => &others,
        Fault::OneWay | Fault::Bandwidth => &names,
        Fault::KillNode | Fault::KillAllNodes | Fault::Drain | Fault::Stop => &nodes,
        Fault::CutZone | Fault::CutPair | Fault::SlowDisk => &nodes,
    };
    if from.len() < 2 {
        return Ok(None);
    }
    let one = prng.pick(from).clone();
    let rest: Vec<String> = from.iter().filter(|name| **name != one).cloned().collect();
    let other = prng.pick(&rest).clone();
    let undo = match fault {
        Fault::KillNode | Fault::KillOther => {
            stand.kill(&one)?;
            Undo::Start(vec![one])
        }
        Fault::KillAllNodes => {
            for name in &nodes {
                stand.kill(name)?;
            }
            Undo::Start(nodes)
        }
        Fault::Drain => {
            stand.drain(&one)?;
            Undo::Start(vec![one])
        }
        Fault::Stop | Fault::StopOther => {
            stand.pause(&one)?;
            Undo::Resume(one)
        }
        Fault::CutZone | Fault::CutPair | Fault::OneWay => {
            let zone = prng.below(3) as usize;
            let directions = match fault {
                Fault::CutZone => both_ways(&stand.zone(zone), &stand.outside(zone)),
                Fault::CutPair => both_ways(&[one], &[other]),
                _ => vec![(one, other)],
            };
            for (from, to) in &directions {
                stand.zones.set_cut(from, to, true)?;
            }
            Undo::Mend(directions)
        }
        Fault::Bandwidth => {
            stand.zones.set_rate(&one, *prng.pick(&[200, 1000, 5000]))?;
            Undo::Widen(one)
        }
        Fault::SlowDisk => {
            stand.set_write_delay(&one, *prng.pick(&[5, 20, 100, 400]))?;
            stand.kill(&one)?;
            stand.start(&one)?;
            Undo::HealDisk(one)
        }
    };
    Ok(Some(undo))
}

/// Ends a fault.
///
/// # Errors
/// When it cannot be ended.
pub fn undo(undo: Undo, stand: &mut Stand) -> Result<(), TortureError> {
    match undo {
        Undo::Start(names) => {
            for name in names {
                stand.wait_until_ended(&name)?;
                stand.start(&name)?;
            }
        }
        Undo::Resume(name) => stand.resume(&name)?,
        Undo::Mend(directions) => {
            for (from, to) in directions {
                stand.zones.set_cut(&from, &to, false)?;
            }
        }
        Undo::Widen(name) => stand.zones.set_rate(&name, 0)?,
        Undo::HealDisk(name) => {
            stand.set_write_delay(&name, 0)?;
            if !stand.is_touched(&name) {
                stand.kill(&name)?;
                stand.start(&name)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn faults_have_names_and_every_seed_its_own_mix() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(&format!("{fault:?}")), Some(fault));
        }
        assert_eq!(Fault::named("Nothing"), None);
        let mixes: BTreeSet<Vec<Fault>> = (0..100).map(|seed| Fault::mix(&mut Prng::new(seed))).collect();
        assert!(mixes.len() > 80 && mixes.iter().all(|mix| mix.len() > 1), "{} mixes", mixes.len());
        let lacking = |fault: &Fault| mixes.iter().filter(|mix| !mix.contains(fault)).count();
        assert!(Fault::ALL.iter().all(|fault| (20..80).contains(&lacking(fault))));
    }

    #[test]
    fn both_directions_of_every_pair_are_cut() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cut = both_ways(&names(&["a"]), &names(&["b", "c"]));
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(cut, [pair("a", "b"), pair("b", "a"), pair("a", "c"), pair("c", "a")]);
    }
}
