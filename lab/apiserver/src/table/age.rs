//! Ages as people read them: `45s`, `3m12s`, `5h`, `2d`.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::object;

/// The age of an object.
pub(super) fn age(object: &Value) -> Value {
    age_since(object::text(object, &["metadata", "creationTimestamp"])).into()
}

/// The time since an RFC 3339 moment; `<unknown>` when there is none.
pub(super) fn age_since(moment: &str) -> String {
    match object::parse_time(moment) {
        None => "<unknown>".to_owned(),
        Some(time) => short(SystemTime::now().duration_since(time).unwrap_or_default()),
    }
}

/// Source: `k8s.io/apimachinery/pkg/util/duration/duration.go`, HumanDuration.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |first: u64, unit: &str, second: u64, small: &str| {
        if second == 0 { format!("{first}{unit}") } else { format!("{first}{unit}{second}{small}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (700_000, "8d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), want);
        }
    }
}
