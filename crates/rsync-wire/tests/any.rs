//! What holds for any bytes, whoever sent them, and the replay of the fuzzer's stored inputs.
//!
//! The fuzz targets `rsync_*` include the files of this folder for their `check`.

#[cfg(test)]
#[path = "any"]
mod any {
    pub(crate) mod delta;
    pub(crate) mod handshake;
    pub(crate) mod list;
    pub(crate) mod mux;
    pub(crate) mod receiver;
    pub(crate) mod roles;
    pub(crate) mod sender;
    pub(crate) mod tokens;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::any;

    /// Panics for an input for which does not hold what should.
    type Check = fn(&[u8]);

    /// A target of the fuzzer, and what holds for its inputs.
    const TARGETS: [(&str, Check); 7] = [
        ("rsync_delta", any::delta::check),
        ("rsync_handshake", any::handshake::check),
        ("rsync_list", any::list::check),
        ("rsync_mux", any::mux::check),
        ("rsync_receiver", any::receiver::check),
        ("rsync_sender", any::sender::check),
        ("rsync_tokens", any::tokens::check),
    ];

    fn stored(target: &str) -> Vec<Vec<u8>> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
        let inputs =
            std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let inputs: Vec<_> = inputs.collect();
        assert!(inputs.len() >= 4, "only {} inputs for {target}", inputs.len());
        inputs
    }

    #[test]
    fn every_stored_input_keeps_the_promises() {
        for (target, check) in TARGETS {
            stored(target).iter().for_each(|input| check(input));
        }
    }

    #[test]
    fn so_does_every_stored_input_with_one_byte_changed() {
        for (target, check) in TARGETS {
            for input in stored(target) {
                // What is long is not changed everywhere.
                for at in (0..input.len()).step_by(input.len() / 300 + 1) {
                    for flip in [1, 0x80, 0xff] {
                        let mut input = input.clone();
                        input[at] ^= flip;
                        check(&input);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_keep_them(
            target in 0..TARGETS.len(),
            bytes in prop::collection::vec(prop_oneof![2 => 0..4_u8, 1 => any::<u8>()], 0..200),
        ) {
            TARGETS[target].1(&bytes);
        }
    }
}
