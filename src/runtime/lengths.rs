//! Lengths of field names, by which most names are told apart.

/// Lengths of names, as a set of bits: most names are told apart by it without a look at any other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lengths(u64);

impl Lengths {
    pub(super) fn insert(&mut self, length: usize) {
        self.0 |= Self::bit(length);
    }

    pub(super) fn join(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// False: they have none in common. True: they may have.
    pub(super) fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// False: there is none. True: there may be.
    pub(super) fn may_hold(self, length: usize) -> bool {
        self.0 & Self::bit(length) != 0
    }

    fn bit(length: usize) -> u64 {
        1 << (length % 64)
    }
}
