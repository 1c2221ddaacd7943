//! A client's byte stream, cut into frames.
//!
//! Input: the stream. Checked: what is announced never exceeds the limit, nothing is allocated,
//! and whether a frame is whole does not depend on how much of the next one has arrived.

use chronik_protocol::{FRAME_PREFIX_BYTES, FrameSplit, split_frame};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "frame_splitter", run, seeds };

const PAYLOAD_BYTES_MAX: usize = 1_000;

fn run(input: &[u8]) {
    let mut rest = input;
    loop {
        let split = allocation::assert_parsing(0, || split_frame(rest, PAYLOAD_BYTES_MAX));
        match split {
            Ok(FrameSplit::Frame { payload }) => {
                assert!(payload <= PAYLOAD_BYTES_MAX, "payload of {payload} bytes");
                let frame = FRAME_PREFIX_BYTES + payload;
                assert_eq!(split_frame(&rest[..frame], PAYLOAD_BYTES_MAX), split);
                assert_eq!(
                    split_frame(&rest[..frame - 1], PAYLOAD_BYTES_MAX),
                    Ok(FrameSplit::NeedMore {
                        total: if payload == 0 { FRAME_PREFIX_BYTES } else { frame }
                    })
                );
                rest = &rest[frame..];
            }
            Ok(FrameSplit::NeedMore { total }) => {
                assert!(total > rest.len(), "{total} bytes needed, {} are here", rest.len());
                assert!(total <= FRAME_PREFIX_BYTES + PAYLOAD_BYTES_MAX, "{total} bytes needed");
                return;
            }
            Err(_) => {
                let prefix = &rest[..FRAME_PREFIX_BYTES];
                assert_eq!(split_frame(prefix, PAYLOAD_BYTES_MAX), split);
                return;
            }
        }
    }
}

fn seeds() -> Vec<Seed> {
    vec![
        Seed::new("two-frames", [0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0]),
        Seed::new("half-a-frame", [0, 0, 0, 9, b'a']),
        Seed::new("negative", [0xff, 0xff, 0xff, 0xff]),
        Seed::new("oversized", [0x7f, 0xff, 0xff, 0xff]),
    ]
}
