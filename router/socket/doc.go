// Package socket serves the streams of package stream to clients: the native
// WebSocket, Server-Sent Events, and Phoenix Channels.
//
// An accepted connection is taken over from net/http. It has one goroutine that
// listens to the client, and one that writes while there is something to write.
// The handshake, reading and control frames of WebSockets are those of
// coder/websocket; data frames are put together here, because a frame is the
// same for all clients and many of them leave in one write.
package socket
