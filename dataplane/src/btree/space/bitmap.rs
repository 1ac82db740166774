//! A bit per block, in regions of 256.

use super::{REGION_BLOCKS, RUN_BLOCKS_MAX, Run};

const WORD_BITS: u64 = u64::BITS as u64;

/// Words of a region.
const REGION_WORDS: usize = (REGION_BLOCKS / WORD_BITS) as usize;

/// A set of blocks.
#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    count: u64,
}

impl Bitmap {
    /// The set of those words, filled up with zeros to whole regions.
    pub(super) fn new(mut words: Vec<u64>) -> Self {
        words.resize(words.len().next_multiple_of(REGION_WORDS), 0);
        let count = words.iter().map(|word| u64::from(word.count_ones())).sum();
        Self { words, count }
    }

    /// How many blocks are in the set.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many regions there are.
    pub(super) fn regions(&self) -> usize {
        self.words.len() / REGION_WORDS
    }

    /// The bits, lowest block first.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds an empty region at the end.
    pub(super) fn grow(&mut self) {
        self.words.extend([0; REGION_WORDS]);
    }

    /// How many blocks of the run are in the set.
    pub(super) fn count_in(&self, run: Run) -> u16 {
        masks(run).map(|(word, mask)| (self.words[word] & mask).count_ones() as u16).sum()
    }

    /// Puts every block of the run into the set.
    pub(super) fn insert(&mut self, run: Run) {
        self.count += u64::from(run.blocks - self.count_in(run));
        masks(run).for_each(|(word, mask)| self.words[word] |= mask);
    }

    /// Takes every block of the run out of the set.
    pub(super) fn remove(&mut self, run: Run) {
        self.count -= u64::from(self.count_in(run));
        masks(run).for_each(|(word, mask)| self.words[word] &= !mask);
    }

    /// The runs of a region, short enough for one page each.
    pub(super) fn runs(&self, region: usize) -> impl Iterator<Item = Run> {
        let words = &self.words[region * REGION_WORDS..][..REGION_WORDS];
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = next(words, at, |word| word);
            at = next(words, start, |word| !word).min(start.saturating_add(RUN_BLOCKS_MAX));
            let block = region as u64 * REGION_BLOCKS + u64::from(start);
            (start < at).then(|| Run { block, blocks: at - start })
        })
    }

    /// The gaps of a region from a place in it on, ascending: each where it begins in the region, and its
    /// length.
    pub(super) fn gaps(&self, region: usize, from: u16) -> impl Iterator<Item = (u16, u16)> {
        let words = &self.words[region * REGION_WORDS..][..REGION_WORDS];
        let mut at = from;
        std::iter::from_fn(move || {
            let start = next(words, at, |word| !word);
            let end = next(words, start, |word| word);
            at = end;
            (start < end).then(|| (start, end - start))
        })
    }
}

/// The first bit at or behind `from` that is set in the words as `seen`; their end when there is none.
fn next(words: &[u64], from: u16, seen: impl Fn(u64) -> u64) -> u16 {
    let first = usize::from(from) / WORD_BITS as usize;
    let mut mask = u64::MAX << (u64::from(from) % WORD_BITS);
    for (index, word) in words.iter().enumerate().skip(first) {
        let bits = seen(*word) & mask;
        if bits != 0 {
            return (index as u32 * u64::BITS + bits.trailing_zeros()) as u16;
        }
        mask = u64::MAX;
    }
    REGION_BLOCKS as u16
}

/// The words that a run touches, each with the run's bits in it.
fn masks(run: Run) -> impl Iterator<Item = (usize, u64)> {
    let end = run.block + u64::from(run.blocks);
    (run.block / WORD_BITS..end.div_ceil(WORD_BITS)).map(move |word| {
        let start = word * WORD_BITS;
        let (low, high) = (run.block.max(start) - start, end.min(start + WORD_BITS) - start);
        (word as usize, u64::MAX << low & u64::MAX >> (WORD_BITS - high))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_across_words_are_counted_and_their_gaps_found() {
        let mut bitmap = Bitmap::new(vec![0; 5]);
        assert_eq!((bitmap.regions(), bitmap.count()), (2, 0));
        bitmap.insert(Run { block: 256 + 60, blocks: 70 });
        bitmap.insert(Run { block: 256 + 254, blocks: 2 });
        assert_eq!(bitmap.words()[4..], [0xf << 60, u64::MAX, 3, 3 << 62]);
        assert_eq!(bitmap.gaps(1, 0).collect::<Vec<_>>(), [(0, 60), (130, 124)]);
        assert_eq!(bitmap.gaps(1, 131).collect::<Vec<_>>(), [(131, 123)]);
        assert_eq!(bitmap.gaps(1, 254).count() + bitmap.gaps(1, 256).count(), 0);
        bitmap.remove(Run { block: 256 + 64, blocks: 64 });
        assert_eq!((bitmap.count(), bitmap.count_in(Run { block: 256 + 60, blocks: 70 })), (8, 6));
        bitmap.insert(Run { block: 0, blocks: 255 });
        assert_eq!(bitmap.gaps(0, 0).collect::<Vec<_>>(), [(255, 1)]);
    }
}
