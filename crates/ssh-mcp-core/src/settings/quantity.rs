//! Numbers, durations and sizes: how they are written, bounded and shown.
//!
//! Durations are counted in milliseconds and sizes in bytes, whatever unit their text has.

use std::marker::PhantomData;
use std::time::Duration;

use super::form::{Context, Form, Read, Reject};

/// What a number counts, and how its text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds where the text has no unit.
    Seconds,
    /// Milliseconds where the text has no unit.
    Millis,
    /// Bytes where the text has no unit; every other unit is a power of 1024.
    Bytes,
}

/// The numbers a setting accepts, in milliseconds, bytes or things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// What is counted.
    pub unit: Unit,
    /// Smallest value, zero apart.
    pub min: u64,
    /// Largest value; `u64::MAX` stands for none.
    pub max: u64,
    /// What zero means where it lies outside `min ..= max` and is accepted all the same.
    pub zero: Option<&'static str>,
}

/// A type that a bounded number becomes.
pub trait Quantity: Copy {
    /// Takes the number (milliseconds for durations); larger ones than the type holds become its largest.
    fn from_number(number: u64) -> Self;
    /// Gives the number back.
    fn to_number(self) -> u64;
}

impl Quantity for u64 {
    fn from_number(number: u64) -> Self {
        number
    }
    fn to_number(self) -> u64 {
        self
    }
}

impl Quantity for u32 {
    fn from_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn to_number(self) -> u64 {
        self.into()
    }
}

impl Quantity for u16 {
    fn from_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn to_number(self) -> u64 {
        self.into()
    }
}

impl Quantity for usize {
    fn from_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn to_number(self) -> u64 {
        self as u64
    }
}

impl Quantity for Duration {
    /// A century stands for every longer time, so that `now + duration` cannot overflow.
    fn from_number(number: u64) -> Self {
        const CENTURY_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
        Self::from_millis(number.min(CENTURY_MS))
    }
    fn to_number(self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Zero is "none": no limit, never, off.
impl<Q: Quantity> Quantity for Option<Q> {
    fn from_number(number: u64) -> Self {
        (number != 0).then(|| Q::from_number(number))
    }
    fn to_number(self) -> u64 {
        self.map_or(0, Q::to_number)
    }
}

/// The form of a bounded number.
pub(super) struct Number<Q> {
    default: u64,
    bounds: Bounds,
    capped_by: Option<&'static str>,
    quantity: PhantomData<fn() -> Q>,
}

pub(super) const fn count<Q>(default: u64, min: u64, max: u64) -> Number<Q> {
    Number {
        default,
        bounds: Bounds { unit: Unit::Count, min, max, zero: None },
        capped_by: None,
        quantity: PhantomData,
    }
}

pub(super) const fn millis<Q>(default: u64, min: u64, max: u64) -> Number<Q> {
    let mut number = count(default, min, max);
    number.bounds.unit = Unit::Millis;
    number
}

/// Default and bounds in seconds.
pub(super) const fn seconds<Q>(default: u64, min: u64, max: u64) -> Number<Q> {
    let mut number = count(default * 1000, min * 1000, max.saturating_mul(1000));
    number.bounds.unit = Unit::Seconds;
    number
}

pub(super) const fn size<Q>(default: u64, min: u64, max: u64) -> Number<Q> {
    let mut number = count(default, min, max);
    number.bounds.unit = Unit::Bytes;
    number
}

impl<Q> Number<Q> {
    /// Accepts zero although it lies below the range, and says what it means.
    pub(super) const fn or_zero(mut self, meaning: &'static str) -> Self {
        self.bounds.zero = Some(meaning);
        self
    }

    /// Lowers the upper bound to the value of another setting, which stands above this one in the table.
    pub(super) const fn capped_by(mut self, name: &'static str) -> Self {
        self.capped_by = Some(name);
        self
    }
}

impl<Q: Quantity> Form for Number<Q> {
    type Value = Q;

    fn read(&self, text: &str, context: &Context<'_>) -> Result<Read<Q>, Reject> {
        let Bounds { unit, min, max, zero } = self.bounds;
        let max = self.capped_by.and_then(|name| context.number(name)).map_or(max, |cap| cap.min(max));
        let (number, exact) = match parse(text, unit)? {
            Parsed::Negative if zero.is_some() => (0, false),
            Parsed::Negative => (min, false),
            Parsed::Number(0) if zero.is_some() => (0, true),
            Parsed::Number(number) => (number.clamp(min, max), (min..=max).contains(&number)),
            Parsed::TooLarge => (max, false),
        };
        let value = Q::from_number(number);
        Ok(if exact { Read::Exact(value) } else { Read::Clamped(value) })
    }

    fn default_value(&self, context: &Context<'_>) -> Q {
        let cap = self.capped_by.and_then(|name| context.number(name)).unwrap_or(u64::MAX);
        Q::from_number(self.default.min(cap))
    }

    fn show(&self, value: &Q) -> String {
        match (value.to_number(), self.bounds.zero) {
            (0, Some(meaning)) => format!("0 ({meaning})"),
            (number, _) => self.bounds.unit.show(number),
        }
    }

    fn number(&self, value: &Q) -> Option<u64> {
        Some(value.to_number())
    }

    fn kind(&self) -> &'static str {
        match self.bounds.unit {
            Unit::Count => "number",
            Unit::Seconds => "seconds",
            Unit::Millis => "milliseconds",
            Unit::Bytes => "size",
        }
    }

    fn default_text(&self) -> String {
        self.show(&Q::from_number(self.default))
    }

    fn range(&self) -> String {
        let Bounds { unit, min, max, zero } = self.bounds;
        let max = match self.capped_by {
            Some(name) => Some(format!("`{name}`")),
            None if max >= u64::from(u32::MAX) && unit != Unit::Bytes => None,
            None => Some(unit.show(max)),
        };
        let min = unit.show(min);
        let range = max.map_or_else(|| format!("≥ {min}"), |max| format!("{min} … {max}"));
        match zero {
            Some(meaning) => format!("{range}, 0 = {meaning}"),
            None => range,
        }
    }

    fn bounds(&self) -> Option<Bounds> {
        Some(self.bounds)
    }
}

impl Unit {
    /// Writes a number so that it can be read back: the largest unit that leaves it whole.
    pub fn show(self, number: u64) -> String {
        let units: &[(u64, &str)] = match self {
            Self::Count => &[],
            Self::Seconds => &[(1000, "s")],
            Self::Millis => &[],
            Self::Bytes => &[(1 << 40, "t"), (1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")],
        };
        let smallest = if matches!(self, Self::Seconds | Self::Millis) { "ms" } else { "" };
        let whole =
            units.iter().copied().find(|(factor, _)| number >= *factor && number.is_multiple_of(*factor));
        let (factor, name) = whole.unwrap_or((1, smallest));
        if number == 0 { "0".to_owned() } else { format!("{}{name}", number / factor) }
    }

    /// Reads a number as a setting of this unit is written; one too large for a number is the largest. Bounds are the
    /// caller's. None where it is no number of this unit, or a negative one.
    pub fn read(self, text: &str) -> Option<u64> {
        match parse(text, self).ok()? {
            Parsed::Number(number) => Some(number),
            Parsed::TooLarge => Some(u64::MAX),
            Parsed::Negative => None,
        }
    }

    /// Finds the factor of a unit's name, in any case; the empty name is the unit of the setting itself.
    fn factor(self, name: &str) -> Option<u64> {
        let name = name.to_ascii_lowercase();
        match (self, name.as_str()) {
            (Self::Count | Self::Bytes, "") | (Self::Millis, "") | (Self::Bytes, "b") => Some(1),
            (Self::Seconds | Self::Millis, "ms") => Some(1),
            (Self::Seconds, "") | (Self::Seconds | Self::Millis, "s") => Some(1000),
            (Self::Seconds | Self::Millis, "m") => Some(60 * 1000),
            (Self::Seconds | Self::Millis, "h") => Some(3600 * 1000),
            (Self::Bytes, "k" | "kb" | "kib") => Some(1 << 10),
            (Self::Bytes, "m" | "mb" | "mib") => Some(1 << 20),
            (Self::Bytes, "g" | "gb" | "gib") => Some(1 << 30),
            (Self::Bytes, "t" | "tb" | "tib") => Some(1 << 40),
            _ => None,
        }
    }
}

enum Parsed {
    Number(u64),
    Negative,
    TooLarge,
}

fn parse(text: &str, unit: Unit) -> Result<Parsed, Reject> {
    let not_a_number = || {
        Reject::Unreadable(match unit {
            Unit::Count => "not a whole number",
            Unit::Seconds | Unit::Millis => "not a whole number with ms, s, m or h",
            Unit::Bytes => "not a whole number with k, m, g or t",
        })
    };
    let (sign, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(unsigned.len());
    let (digits, name) = unsigned.split_at(end);
    let between_digits = !digits.starts_with('_') && !digits.ends_with('_');
    let factor = unit.factor(name).ok_or_else(not_a_number)?;
    if digits.is_empty() || !between_digits {
        return Err(not_a_number());
    }
    let number = digits
        .bytes()
        .filter(u8::is_ascii_digit)
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    Ok(match number.and_then(|number| number.checked_mul(factor)) {
        Some(0) => Parsed::Number(0),
        _ if sign => Parsed::Negative,
        Some(number) => Parsed::Number(number),
        None => Parsed::TooLarge,
    })
}
