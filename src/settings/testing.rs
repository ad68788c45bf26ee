//! Switches for tests of the program itself.

use super::key::{choice, keys};

keys! {
    /// Switches for tests of the program itself. Not for operation: they make it slower.
    pub struct TestingSettings {
        /// Sends every request through one of the two drivers of the engine, so that tests can compare them. `auto`
        /// chooses by what the request needs.
        test_driver: TestDriver = "auto";
    }
}

choice! {
    /// Which driver serves.
    pub enum TestDriver {
        /// The one that the request needs.
        Auto = "auto",
        /// The exchange driver, wherever it can serve at all.
        Exchange = "exchange",
        /// The duplex driver.
        Duplex = "duplex",
    }
}
