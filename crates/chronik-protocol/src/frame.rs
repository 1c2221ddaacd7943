//! Cuts a byte stream into frames.
//!
//! ```text
//!  +---------------------+----------------------+
//!  | length (i32, big-   | payload              |
//!  | endian, payload     | header, then body    |
//!  | only)               |                      |
//!  +---------------------+----------------------+
//! ```
//!
//! A pure function over what has been received. It allocates nothing: a caller that buffers what
//! arrives, and not what is announced, needs memory only for received bytes.

/// Bytes of the length before a payload.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// What the start of the received bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameSplit {
    /// Not a whole frame yet. `total` bytes, counted from the start of the frame, are needed
    /// before a second look can say more.
    NeedMore {
        /// Bytes needed, including those that are here; at most the limit plus the prefix.
        total: usize,
    },
    /// A whole frame: its payload is `input[FRAME_PREFIX_BYTES..FRAME_PREFIX_BYTES + payload]`.
    Frame {
        /// Bytes of the payload, at most the limit. May be 0.
        payload: usize,
    },
}

/// A length that no frame of this connection may have. The stream cannot be followed any
/// further, so the connection has to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("frame length {length} is negative")]
    Negative {
        /// The length as sent.
        length: i32,
    },
    /// The length is above the limit.
    #[error("frame of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Bytes of payload announced.
        length: usize,
        /// Largest payload allowed.
        limit: usize,
    },
}

/// Looks for a frame at the start of `input`. `limit` is the largest payload in bytes.
///
/// # Errors
///
/// If the length is negative or above `limit`; known as soon as the prefix is there.
pub fn split_frame(input: &[u8], limit: usize) -> Result<FrameSplit, FrameError> {
    let Some((prefix, rest)) = input.split_first_chunk::<FRAME_PREFIX_BYTES>() else {
        return Ok(FrameSplit::NeedMore { total: FRAME_PREFIX_BYTES });
    };
    let length = i32::from_be_bytes(*prefix);
    let payload = usize::try_from(length).map_err(|_| FrameError::Negative { length })?;
    if payload > limit {
        return Err(FrameError::TooLong { length: payload, limit });
    }
    if rest.len() < payload {
        return Ok(FrameSplit::NeedMore { total: FRAME_PREFIX_BYTES + payload });
    }
    Ok(FrameSplit::Frame { payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_once_its_last_byte_is_there() {
        let stream = [0, 0, 0, 3, 7, 8, 9, 0];
        for received in 0..4 {
            let split = split_frame(&stream[..received], 3);
            assert_eq!(split, Ok(FrameSplit::NeedMore { total: 4 }), "{received} bytes");
        }
        for received in 4..7 {
            let split = split_frame(&stream[..received], 3);
            assert_eq!(split, Ok(FrameSplit::NeedMore { total: 7 }), "{received} bytes");
        }
        for received in 7..=8 {
            let split = split_frame(&stream[..received], 3);
            assert_eq!(split, Ok(FrameSplit::Frame { payload: 3 }), "{received} bytes");
        }
        assert_eq!(split_frame(&[0; 4], 3), Ok(FrameSplit::Frame { payload: 0 }));
    }

    #[test]
    fn a_negative_or_oversized_length_is_refused_before_the_payload_arrives() {
        let negative = split_frame(&[0xff; 4], 100);
        assert_eq!(negative, Err(FrameError::Negative { length: -1 }));
        let too_long = split_frame(&[0, 0, 0, 101], 100);
        assert_eq!(too_long, Err(FrameError::TooLong { length: 101, limit: 100 }));
        let largest = split_frame(&[0x7f, 0xff, 0xff, 0xff], 100);
        assert_eq!(largest, Err(FrameError::TooLong { length: 0x7fff_ffff, limit: 100 }));
    }
}
