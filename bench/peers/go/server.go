// The server on Go's net package, as its users write it: one goroutine a connection and blocking calls, which the
// runtime's poller turns into edge-triggered epoll.
//
// Fair: buffers come from a pool, so that short connections make no garbage; keep-alive is switched off (Go sets it, with
// three more calls, on every connection); Go reads before it waits; Close after the client's FIN sends ours without a
// CloseWrite. Go sets TCP_NODELAY on each connection, and takes the backlog from the system's limit; neither can be
// chosen. It uses as many processors as it is given: pin it to one to compare it with the others.
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	line       = "finale: 64 bytes that say nothing but that the answer is whole.\n"
	pieceBytes = 64 << 10
	// What is only thrown away, or echoed in small messages, is read into little, so that an idle connection holds little.
	readBytes = 4 << 10
	echoBytes = 64 << 10
	rest      = 10 * time.Millisecond
)

var (
	lines   = []byte(strings.Repeat(line, pieceBytes/len(line)))
	buffers = sync.Pool{New: func() any { buffer := make([]byte, readBytes); return &buffer }}
	echoes  = sync.Pool{New: func() any { buffer := make([]byte, echoBytes); return &buffer }}
)

// send begins every piece at the start of a line: Go itself sees to the rest of a partial write.
func send(conn *net.TCPConn, answer uint64) error {
	for left := answer; left > 0; {
		now := len(lines)
		if left < uint64(now) {
			now = int(left)
		}
		if _, err := conn.Write(lines[:now]); err != nil {
			return err
		}
		left -= uint64(now)
	}
	return nil
}

// skip reads until so many bytes have come, or to the client's FIN; whether they have come.
func skip(conn *net.TCPConn, enough uint64) (bool, error) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for count := uint64(0); count < enough; {
		read, err := conn.Read(*buffer)
		count += uint64(read)
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// ended reads to the client's FIN; whether it came, and not a failure in its place.
func ended(conn *net.TCPConn) bool {
	_, err := skip(conn, math.MaxUint64)
	return err == io.EOF
}

func finishLast(conn *net.TCPConn, answer uint64) {
	defer conn.Close()
	if ended(conn) {
		send(conn, answer)
	}
}

func finishFirst(conn *net.TCPConn, request, answer uint64) {
	defer conn.Close()
	if whole, _ := skip(conn, request); !whole {
		return
	}
	if send(conn, answer) == nil && conn.CloseWrite() == nil {
		ended(conn)
	}
}

func echo(conn *net.TCPConn) {
	defer conn.Close()
	buffer := echoes.Get().(*[]byte)
	defer echoes.Put(buffer)
	for {
		read, err := conn.Read(*buffer)
		if read > 0 {
			if _, err := conn.Write((*buffer)[:read]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: answer BYTES | first REQUEST ANSWER | echo")
	os.Exit(2)
}

func service(args []string) func(*net.TCPConn) {
	if len(args) == 0 {
		usage()
	}
	var counts []uint64
	for _, text := range args[1:] {
		count, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			usage()
		}
		counts = append(counts, count)
	}
	switch {
	case args[0] == "answer" && len(counts) == 1:
		return func(conn *net.TCPConn) { finishLast(conn, counts[0]) }
	case args[0] == "first" && len(counts) == 2:
		return func(conn *net.TCPConn) { finishFirst(conn, counts[0], counts[1]) }
	case args[0] == "echo" && len(counts) == 0:
		return echo
	}
	usage()
	return nil
}

func main() {
	serve := service(os.Args[1:])
	config := net.ListenConfig{KeepAlive: -1}
	listener, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			// Out of descriptors, mostly; net/http backs off as well.
			time.Sleep(rest)
			continue
		}
		go serve(conn.(*net.TCPConn))
	}
}
