// Go's net/http with its defaults, and its Shutdown at SIGTERM. A body above 64 KiB is refused.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var big = make([]byte, 16<<20)

func answer(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10)); err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	switch r.URL.Path {
	case "/slow":
		time.Sleep(1500 * time.Millisecond)
		io.WriteString(w, "slow\n")
	case "/big":
		w.Write(big)
	default:
		io.WriteString(w, "hello\n")
	}
}

func main() {
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(answer)}
	stopped := make(chan struct{})
	go func() {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		<-term
		server.Shutdown(context.Background())
		close(stopped)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-stopped
}
