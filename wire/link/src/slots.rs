//! A table whose entries keep their place until they are removed. Places are used again.

/// Values by place.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Where the next value will stand.
    pub(crate) fn next_place(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    /// Puts a value somewhere and says where.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(value);
                place
            }
            None => {
                self.slots.push(Some(value));
                (self.slots.len() - 1) as u32
            }
        }
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.slots.get(place as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.slots.get_mut(place as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let value = self.slots.get_mut(place as usize)?.take();
        if value.is_some() {
            self.free.push(place);
        }
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The places in use, ascending.
    pub(crate) fn places(&self) -> Vec<u32> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.map(|(place, _)| place as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_until_removed_and_then_used_again() {
        let mut slots = Slots::default();
        let (first, second) = (slots.insert("a"), slots.insert("b"));
        assert_eq!(slots.remove(first), Some("a"));
        assert_eq!((slots.remove(first), slots.len()), (None, 1));
        assert_eq!(slots.next_place(), first);
        assert_eq!(slots.insert("c"), first);
        assert_eq!(slots.get(second), Some(&"b"));
        assert_eq!(slots.places(), [first, second]);
    }
}
