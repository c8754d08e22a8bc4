//! The checksums and compressors a client may choose, by their names on the wire.

/// A checksum of blocks and files.
///
/// The 8-byte checksums of rsync are left out because servers up to 3.4 mishandle them when a file is sent again, and so are
/// those that are weaker than MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// XXH3 with 128 bits.
    Xxh128,
    /// MD5.
    Md5,
}

impl Checksum {
    /// The name on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xxh128 => "xxh128",
            Self::Md5 => "md5",
        }
    }

    /// How many bytes a digest has.
    #[must_use]
    pub fn digest_length(self) -> usize {
        match self {
            Self::Xxh128 | Self::Md5 => 16,
        }
    }
}

/// A compressor of literal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// Zstandard, one context for all files.
    Zstd,
    /// LZ4 in independent blocks.
    Lz4,
    /// Deflate, of literal data only.
    Zlibx,
    /// Deflate, with matched data in its window.
    Zlib,
}

impl Compressor {
    /// The name on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Zlibx => "zlibx",
            Self::Zlib => "zlib",
        }
    }
}
