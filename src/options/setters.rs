//! The setters of a listener's options (for the connections that it accepts) and of an outgoing
//! connection's: the same words with the same meaning.
//!
//! A limit takes a `Duration`, or `None` for no limit.

macro_rules! shared_setters {
    ($options:ident) => {
        impl $options {
            /// TCP_NODELAY: small segments are sent at once, without Nagle's algorithm. Default on.
            #[doc(alias = "noDelay")]
            #[doc(alias = "TCP_NODELAY")]
            #[must_use]
            pub const fn nodelay(mut self, on: bool) -> Self {
                self.system.nodelay = on;
                self
            }

            /// TCP keep-alive. Default off. It detects a machine that is lost while nothing is in
            /// flight; with bytes in flight `user_timeout` does.
            #[must_use]
            pub fn keep_alive(mut self, times: impl Into<Option<KeepAlive>>) -> Self {
                self.system.keep_alive = times.into();
                self
            }

            /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged, a closed window
            /// included, before the kernel gives the connection up (RFC 5482). Rounded up to whole
            /// milliseconds. Default: the kernel's own, about 15 minutes. Only Linux has it;
            /// elsewhere it is ignored.
            #[must_use]
            pub fn user_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.system.user_timeout = limit.into();
                self
            }

            /// SO_SNDBUF in bytes; the kernel doubles the number (socket(7)). Default: the kernel's
            /// own.
            #[must_use]
            pub const fn send_buffer_size(mut self, bytes: usize) -> Self {
                self.system.send_buffer_bytes = Some(bytes);
                self
            }

            /// SO_RCVBUF in bytes; the kernel doubles the number (socket(7)). Default: the kernel's
            /// own.
            #[must_use]
            pub const fn receive_buffer_size(mut self, bytes: usize) -> Self {
                self.system.receive_buffer_bytes = Some(bytes);
                self
            }

            /// The idle timeout: `timeout` is delivered once after no byte has moved for this long.
            /// Nothing is closed. It applies while the connection is established, except in the
            /// states `Lingering` and `Closing`. Default none: the meaning of a silence depends on
            /// the protocol. A peer that sends a byte now and then is never idle, see
            /// [`deadline`](Self::deadline), nor is one that still takes what our kernel holds for
            /// it, see [`close_timeout`](Self::close_timeout).
            #[must_use]
            pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.idle_ms = limit.into().and_then(millis);
                self
            }

            /// Which bytes restart the idle time. Default [`IdleDirection::Both`].
            #[must_use]
            pub const fn idle_direction(mut self, direction: IdleDirection) -> Self {
                self.settings.idle_direction = direction;
                self
            }

            /// The deadline: the socket fails this long after the event `connection` or `connect`,
            /// whatever moves. It ends a peer that sends its request byte by byte.
            /// [`Socket::set_deadline`](crate::Socket::set_deadline) replaces it for the next
            /// request, or removes it when the request is complete. Default none: how long a
            /// request may take depends on the protocol.
            #[must_use]
            pub fn deadline(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.deadline_ms = limit.into().and_then(millis);
                self
            }

            /// The write timeout: the socket fails when queued bytes have waited for this long and
            /// the peer has taken none. It starts with the first byte that waits. After `end()` the
            /// [close timeout](Self::close_timeout) applies instead. Default none: a peer may
            /// pause, and the [write limit](Self::write_limit) bounds its cost.
            #[must_use]
            pub fn write_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.write_ms = limit.into().and_then(millis);
                self
            }

            /// The half-closed timeout: the socket fails when one side has finished and no byte has
            /// moved for this long. It also applies to a paused socket whose peer has ended. Bytes
            /// in either direction restart it, and so do bytes that the peer takes from our kernel.
            /// Default 5 min; with `None` a peer that never finishes is bounded only by the [ending
            /// timeout](Self::ending_timeout).
            #[must_use]
            pub fn half_closed_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.half_closed_ms = limit.into().and_then(millis);
                self
            }

            /// The close timeout. After our `end()` the socket fails when the peer has taken no
            /// byte for this long, or has not acknowledged our FIN, or after `discard()` has not
            /// sent its FIN. Bytes that the peer sends don't restart it. Default 30 s. Without
            /// `discard()` the half-closed timeout applies from our FIN until the peer's FIN.
            ///
            /// A byte is taken when the peer's kernel acknowledges it. Our own kernel may hold
            /// megabytes, for which a slow peer needs longer than this limit. On Linux finale
            /// therefore queries the kernel (sock_diag(7)) before this or another limit of silence
            /// strikes, and the limit counts from the last byte that was taken. Without a result (a
            /// Unix domain socket, another network namespace, some sandboxes, another system)
            /// finale tries to write what waits in its queue once more, and bytes that the kernel
            /// accepts restart the limit. If our FIN and bytes before it are with the kernel
            /// already, the connection is closed with close(2) instead of a reset, so that the
            /// kernel can deliver the rest.
            ///
            /// (SO_LINGER is never used with a time: it would block the loop in close(2).)
            #[must_use]
            pub fn close_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.close_ms = limit.into().and_then(millis);
                self
            }

            /// The ending timeout: the socket fails when this time has passed since the peer's FIN
            /// arrived or `end()` was called, whichever was first. Nothing restarts it. It bounds
            /// what no limit of silence can: a peer that sends or takes a byte now and then.
            /// Default 4 h, which at 2.3 KB/s is enough for all that can wait in queue and kernel.
            /// If half-closing clients download more than that, set more, or `None`.
            #[must_use]
            pub fn ending_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
                self.settings.ending_ms = limit.into().and_then(millis);
                self
            }

            /// Queued bytes at which `write` returns
            /// [`Backpressure::Full`](crate::Backpressure::Full). Default 128 KiB.
            #[doc(alias = "writableHighWaterMark")]
            #[must_use]
            pub const fn high_water_mark(mut self, bytes: usize) -> Self {
                self.settings.high_water_bytes = bytes;
                self
            }

            /// Queued bytes at which [`Event::Drain`](crate::Event::Drain) is delivered after the
            /// queue was full. Default 0: empty. A higher mark keeps the peer busy while the
            /// program fetches more.
            #[must_use]
            pub const fn low_water_mark(mut self, bytes: usize) -> Self {
                self.settings.low_water_bytes = bytes;
                self
            }

            /// Queued bytes at which `write` refuses more. The queue exceeds it by at most one
            /// write. Default 16 MiB.
            #[must_use]
            pub const fn write_limit(mut self, bytes: usize) -> Self {
                self.settings.limit_bytes = bytes;
                self
            }

            /// How the connection is closed when both sides have finished. Default
            /// [`CloseMode::Confirmed`].
            #[doc(alias = "linger")]
            #[doc(alias = "SO_LINGER")]
            #[must_use]
            pub const fn close_mode(mut self, mode: CloseMode) -> Self {
                self.settings.close = mode;
                self
            }

            /// With `false` our side ends by itself after the `end` event was handled, as by
            /// default in Node. Default `true`: half-close.
            #[doc(alias = "allowHalfOpen")]
            #[must_use]
            pub const fn allow_half_open(mut self, allow: bool) -> Self {
                self.settings.half_open = allow;
                self
            }

            /// Whether [`Event::PeerEnded`](crate::Event::PeerEnded) is delivered whenever the
            /// peer's end is known before it is read, and not only for a paused socket that is
            /// dead. A socket that is not paused may find the end by reading: then only `end` or
            /// `error` is delivered. Default off.
            #[must_use]
            pub const fn notify_peer_ended(mut self, on: bool) -> Self {
                self.settings.notify_peer_ended = on;
                self
            }

            /// Whether the socket starts paused: nothing is read until `resume`. Default off.
            #[doc(alias = "pauseOnConnect")]
            #[must_use]
            pub const fn start_paused(mut self, on: bool) -> Self {
                self.settings.paused = on;
                self
            }

            /// Refuses values that the system can't set.
            pub(crate) fn check(&self) -> Result<(), Error> {
                self.system.check()?;
                self.settings.check()
            }
        }
    };
}
