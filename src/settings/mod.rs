//! What the operator decides at boot: configuration keys, their defaults and checks. Pure.
