//! Spans for those who watch what a store or a session does. Without the feature `tracing` there is nothing of them.
//!
//! What is inside stays inside a function, so that a span ends with what it stands for. No span begins, ends or is told
//! something while the gate is closed for a checkpoint, and none is on the way of a fault.

#[cfg(feature = "tracing")]
mod on {
    pub use tracing::{self, field::Empty};

    /// Begins a span, entered until it is dropped: a level, a name, then fields as `tracing` takes them. All have the target
    /// `segvm`.
    #[doc(hidden)]
    #[macro_export]
    macro_rules! __span {
        ($level:ident, $name:literal $(, $($fields:tt)*)?) => {
            $crate::spans::tracing::span!(
                target: "segvm",
                $crate::spans::tracing::Level::$level,
                $name
                $(, $($fields)*)?
            )
            .entered()
        };
    }

    /// Tells a span what its fields are that were left empty.
    #[doc(hidden)]
    #[macro_export]
    macro_rules! __record {
        ($span:expr, $($field:ident = $value:expr),+ $(,)?) => {
            if !$span.is_disabled() {
                $( $span.record(stringify!($field), $value); )+
            }
        };
    }

    /// A value as it prints.
    pub fn shown<T: std::fmt::Display>(value: T) -> impl tracing::Value {
        tracing::field::display(value)
    }
}

#[cfg(not(feature = "tracing"))]
mod on {
    /// Where a span would be.
    #[derive(Debug)]
    #[must_use]
    pub struct Span;

    impl Drop for Span {
        /// Nothing; but it may be ended by hand, as a span is.
        fn drop(&mut self) {}
    }

    #[doc(hidden)]
    #[macro_export]
    macro_rules! __span {
        ($($anything:tt)*) => {
            $crate::spans::Span
        };
    }

    #[doc(hidden)]
    #[macro_export]
    macro_rules! __record {
        ($span:expr, $($field:ident = $value:expr),+ $(,)?) => {
            if false {
                let _: &$crate::spans::Span = &$span;
                $( let _ = $value; )+
            }
        };
    }

    /// A value as it would print.
    pub fn shown<T: std::fmt::Display>(value: T) -> impl std::fmt::Display {
        value
    }
}

use std::time::Duration;

pub use self::on::*;
pub use crate::{__record as record, __span as span};

/// A duration as fields have it.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
