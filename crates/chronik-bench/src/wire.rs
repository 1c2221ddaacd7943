//! One socket of a worker: frames out in order, received bytes cut into frames.
//!
//! Small frames are collected and sent with one write per turn; a large batch is written from
//! where it lies, and only what the socket does not take is copied. Reading takes what is there
//! with one call per readiness, into a buffer that grows to the largest frame.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use chronik_protocol::{FRAME_PREFIX_BYTES, FrameSplit, OutputBuffer, split_frame};

use crate::client::RESPONSE_BYTES_MAX;
use crate::produce_request::RequestParts;
use crate::producer_engine::FrameSink;

/// Frames of at least this size are not copied if the socket takes them.
const DIRECT_BYTES_MIN: usize = 4 << 10;

/// With this much waiting to be sent, more had better wait, too.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Room for received bytes at the start.
const RECEIVE_BYTES_MIN: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that are sent.
    sent: usize,
    received: Vec<u8>,
    /// Received bytes are `received[consumed..filled]`.
    consumed: usize,
    filled: usize,
    /// Set by a write that failed; reported by the next flush.
    broken: Option<io::Error>,
    /// True if the poller watches for room to write.
    pub watches_write: bool,
}

impl Wire {
    /// A wire over a connected stream.
    ///
    /// # Errors
    /// If the stream cannot be made non-blocking.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            unsent: Vec::new(),
            sent: 0,
            received: vec![0; RECEIVE_BYTES_MIN],
            consumed: 0,
            filled: 0,
            broken: None,
            watches_write: false,
        })
    }

    /// The socket, for a poller.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// True if something waits for room in the socket.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.unsent.len()
    }

    /// Appends bytes to what is sent next.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Moves everything `out` holds to what is sent next.
    pub fn queue_output(&mut self, out: &mut OutputBuffer) {
        let mut slices = [IoSlice::new(&[]); 8];
        while !out.is_empty() {
            let used = out.fill_io_slices(&mut slices, usize::MAX);
            let mut count = 0;
            for slice in &slices[..used] {
                self.unsent.extend_from_slice(slice);
                count += slice.len();
            }
            slices = [IoSlice::new(&[]); 8];
            out.advance(count);
        }
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// Those of the socket; it is then of no use any more.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there, once. False if nothing was there.
    ///
    /// # Errors
    /// Those of the socket, and its end.
    pub fn receive(&mut self) -> io::Result<bool> {
        self.make_room()?;
        loop {
            match self.stream.read(&mut self.received[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Room for the rest of the frame that has begun, or at least for some bytes.
    fn make_room(&mut self) -> io::Result<()> {
        if self.consumed == self.filled {
            (self.consumed, self.filled) = (0, 0);
            return Ok(());
        }
        let needed = match self.split()? {
            FrameSplit::NeedMore { total } => total,
            FrameSplit::Frame { payload } => FRAME_PREFIX_BYTES + payload,
        };
        if self.consumed + needed > self.received.len() || self.filled == self.received.len() {
            self.received.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
            // Grows with what has arrived, not with what is announced.
            let wanted = needed.min(self.filled.saturating_mul(2)).max(RECEIVE_BYTES_MIN);
            if wanted > self.received.len() {
                self.received.resize(wanted, 0);
            }
        }
        Ok(())
    }

    fn split(&self) -> io::Result<FrameSplit> {
        split_frame(&self.received[self.consumed..self.filled], RESPONSE_BYTES_MAX)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The payload of the next whole frame, if there is one.
    ///
    /// # Errors
    /// If a length is out of bounds.
    pub fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        match self.split()? {
            FrameSplit::NeedMore { .. } => Ok(None),
            FrameSplit::Frame { payload } => {
                let start = self.consumed + FRAME_PREFIX_BYTES;
                self.consumed = start + payload;
                Ok(Some(&self.received[start..start + payload]))
            }
        }
    }
}

impl FrameSink for Wire {
    fn send(&mut self, request: RequestParts<'_>) {
        if request.size() < DIRECT_BYTES_MIN || self.broken.is_some() {
            self.queue(request.head);
            self.queue(request.batch);
            self.queue(request.tail);
            return;
        }
        let pieces = [&self.unsent[self.sent..], request.head, request.batch, request.tail];
        let slices = pieces.map(IoSlice::new);
        let mut taken = match self.stream.write_vectored(&slices) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                self.broken = Some(error);
                return;
            }
        };
        let from_unsent = taken.min(pieces[0].len());
        taken -= from_unsent;
        self.sent += from_unsent;
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
        }
        for piece in [request.head, request.batch, request.tail] {
            let skipped = taken.min(piece.len());
            taken -= skipped;
            self.unsent.extend_from_slice(&piece[skipped..]);
        }
    }

    fn has_room(&self) -> bool {
        self.unsent.len() - self.sent < UNSENT_BYTES_MAX && self.broken.is_none()
    }
}
