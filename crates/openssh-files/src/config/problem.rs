//! What can be wrong with a line.

/// Why a line, or an option of a call, cannot be honoured; says it in words that fit behind `file:line:`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first word is none that a keyword could be.
    #[error("{0:?} is not a keyword")]
    NotAKeyword(String),
    /// Not UTF-8, or with a zero byte.
    #[error("not plain text")]
    NotText,
    /// Longer than 64 KiB.
    #[error("longer than {} bytes", super::words::LINE_MAX)]
    TooLong,
    /// Nothing stands behind the keyword.
    #[error("{0} has no argument")]
    NoArgument(&'static str),
    /// More stands behind the keyword than it takes.
    #[error("{0} has more than one argument")]
    ExtraArguments(&'static str),
    /// A quotation is not closed.
    #[error("{0} has a quotation without an end")]
    Quotes(&'static str),
    /// The keyword knows no such value.
    #[error("{keyword} cannot be {value:?}")]
    Value {
        /// The keyword.
        keyword: &'static str,
        /// What stands there.
        value: String,
    },
    /// `none` among other files.
    #[error("{0}: \"none\" must stand alone")]
    NoneAmongOthers(&'static str),
    /// More files than OpenSSH takes.
    #[error("{keyword} names more than {max} files")]
    TooManyFiles {
        /// The keyword.
        keyword: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// `Match` has no criterion.
    #[error("Match has no criterion")]
    NoCriterion,
    /// `Match` knows no such criterion.
    #[error("Match has no criterion {0:?}")]
    Criterion(String),
    /// A criterion of `Match` lacks its argument.
    #[error("Match {0} has no argument")]
    CriterionArgument(&'static str),
    /// `all` beside other criteria.
    #[error("Match all stands alone, or behind one canonical or final")]
    MatchAll,
    /// A token that nothing is known for.
    #[error("{keyword}: {error}")]
    Expand {
        /// The keyword.
        keyword: &'static str,
        /// What cannot be expanded.
        error: super::ExpandError,
    },
    /// Includes within includes, more than 16 deep; a file that includes itself ends here too.
    #[error("includes are more than {} deep", super::load::DEPTH_MAX)]
    TooDeep,
    /// More files than any real configuration has.
    #[error("more than {} files are included", super::load::FILES_MAX)]
    TooManyIncludes,
    /// A home directory in a file that is nobody's own.
    #[error("Include of a home directory in a file of the system")]
    IncludeOfAHome,
    /// `Host`, `Match` and `Include` have a meaning in files only.
    #[error("{0} is for files only")]
    FilesOnly(&'static str),
}

impl Problem {
    pub(super) fn value(keyword: &'static str, value: &str) -> Problem {
        Problem::Value { keyword, value: value.to_owned() }
    }
}
