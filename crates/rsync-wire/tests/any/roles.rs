//! What both roles agree on, as one byte chooses it: for the fuzz targets `rsync_sender` and `rsync_receiver`.

use rsync_wire::checksum::Algorithm;
use rsync_wire::command::InPlace;
use rsync_wire::negotiate::{Agreed, CompatFlags, Compressor, Protocol};
use rsync_wire::role::Terms;

pub(crate) fn terms(which: u8) -> Terms {
    let has = |bit: u8| which & bit != 0;
    let agreed = Agreed {
        protocol: if has(1) { Protocol::V30 } else { Protocol::V32 },
        flags: CompatFlags::from_bits(if has(2) { 0 } else { 0x1fe }),
        checksum: if has(4) { Algorithm::Md5 } else { Algorithm::Xxh128 },
        compressor: [None, Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)]
            [usize::from(which >> 3 & 3)],
        seed: -7,
    };
    let in_place = [None, None, Some(InPlace::Update), Some(InPlace::Append)][usize::from(which >> 6)];
    Terms { agreed, dry_run: has(32), in_place }
}
