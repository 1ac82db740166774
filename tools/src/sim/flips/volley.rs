//! Several pages of one node at once, while checks and checkpoints overtake each other.
//!
//! A check goes through the version that is there when it begins. Meanwhile pages are repaired, and
//! checkpoints write versions that do without the damaged ones. Of each volley is required:
//!
//! * every damaged page is found, and is counted and repaired once, whoever reads an older version;
//! * afterwards nothing is held or lost, although nobody asks for another checkpoint.

use super::{Campaign, LOG_RESTS, LOOK_EVERY, PATIENCE, Part, identity};
use crate::live::{Live, live};
use crate::sim::network::HostId;
use evenkeel_dataplane::core::serving::Serving;
use std::collections::BTreeSet;

/// Most pages of a volley.
const PAGES_MAX: u64 = 12;

impl Campaign {
    /// Volleys until so many bits have flipped.
    pub(super) fn volleys(&mut self, flips: u64) -> Result<(), String> {
        "setting up: ".clone_into(&mut self.doing);
        self.set_up()?;
        let mut number = 0;
        while self.report.sum().flipped < flips {
            number += 1;
            self.doing = format!("volley {number}: ");
            self.write_some()?;
            self.volley()?;
            self.compare()?;
        }
        Ok(())
    }

    fn volley(&mut self) -> Result<(), String> {
        let storage: Vec<HostId> = self.cluster.storage().collect();
        let victim = *self.prng.pick(&storage);
        self.rest()?;
        self.checkpoint(victim)?;
        self.rest()?;
        self.world.run_until(self.world.now + LOG_RESTS);
        let pages = self.targets(victim)?;
        let before = self.core(victim).map(Serving::damage_counts).ok_or("the core does not serve")?;
        for page in &pages {
            let (at, bit) = (page.at + self.prng.below(page.bytes), self.prng.below(8) as u8);
            self.do_flip(page.part, victim, page.file, at, bit);
        }
        let checks = self.world.want_check(victim).ok_or("the core does not serve")?;
        let deadline = self.world.now + PATIENCE;
        let is_checked = |run: &Self| {
            run.core(victim).is_some_and(|core| core.tree_status().checks >= checks && core.is_at_rest())
        };
        while !(is_checked(self) && self.is_repaired(victim)) {
            if self.world.now > deadline {
                return Err(format!("{pages:#?} are not all repaired"));
            }
            if self.prng.chance(1, 4) && !is_checked(self) {
                self.world.want_checkpoint(victim);
            }
            self.advance(LOOK_EVERY)?;
        }
        let after = self.core(victim).map(Serving::damage_counts).ok_or("the core does not serve")?;
        let (found, repaired) = (after.0 - before.0, after.1 - before.1);
        let flipped = pages.len() as u64;
        if (found, repaired) != (flipped, flipped) {
            let said = self.said.take();
            return Err(format!("{flipped} pages: {found} found, {repaired} repaired\n{pages:#?}\n{said}"));
        }
        self.until("everything to be given back", |run| run.holds_nothing(victim))?;
        for page in &pages {
            let count = self.count(page.part);
            (count.by_check, count.repaired) = (count.by_check + 1, count.repaired + 1);
        }
        Ok(())
    }

    /// Leaves and runs, of which none is repaired with another.
    fn targets(&mut self, victim: HostId) -> Result<Vec<Live>, String> {
        let host = &self.world.hosts[victim];
        let disk = host.disk.as_ref().expect("it stores");
        let all = live(disk, &identity(host))?.into_iter();
        let mut pages: Vec<Live> = all.filter(|live| matches!(live.part, Part::Leaf | Part::Run)).collect();
        let wanted = 1 + self.prng.below(PAGES_MAX) as usize;
        let (mut targets, mut units) = (Vec::new(), BTreeSet::new());
        while targets.len() < wanted && !pages.is_empty() {
            let page = pages.swap_remove(self.prng.below(pages.len() as u64) as usize);
            if units.insert(page.page.as_ref().expect("it is a page").place.unit) {
                targets.push(page);
            }
        }
        Ok(targets)
    }

    fn holds_nothing(&self, host: HostId) -> bool {
        let status = self.core(host).map(Serving::tree_status).unwrap_or_default();
        let held = status.blocks_loose + status.blocks_retired + status.damaged_pages;
        held == 0 && self.check(host).is_ok_and(|report| report.findings.is_empty() && report.lost == Some(0))
    }
}
