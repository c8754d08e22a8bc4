//! The waits between attempts: exponential with jitter, never above ten seconds.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The waits after each failed attempt, at most `retries` of them.
///
/// `seed` decides the jitter, so that a test can repeat it; core has no random numbers of its own.
pub fn waits(first: Duration, retries: u32, seed: u64) -> impl Iterator<Item = Duration> {
    // The jitter of the library adds up to one minimal delay; what it makes longer than the cap is cut back.
    ExponentialBuilder::default()
        .with_min_delay(first.min(LONGEST))
        .with_max_delay(LONGEST)
        .with_max_times(retries as usize)
        .with_jitter()
        .with_jitter_seed(seed)
        .build()
        .map(|wait| wait.min(LONGEST))
}

/// No wait is longer (`docs/errors.md`, category TRANSPORT).
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stop_growing() {
        let waits: Vec<_> = waits(Duration::from_secs(1), 6, 7).collect();
        assert_eq!(waits.len(), 6);
        for (n, wait) in waits.iter().enumerate() {
            let base = Duration::from_secs(1 << n).min(LONGEST);
            assert!(*wait >= base && *wait <= (base * 2).min(LONGEST), "{n}: {wait:?}");
        }
    }

    #[test]
    fn no_retries_no_waits() {
        assert_eq!(waits(Duration::from_secs(1), 0, 7).count(), 0);
    }

    #[test]
    fn a_first_wait_of_zero_stays_zero() {
        assert!(waits(Duration::ZERO, 3, 7).all(|wait| wait == Duration::ZERO));
    }
}
