// Command fastpaca-bench measures whole processes: it starts a built fastpaca
// in a directory of its own, and a PostgreSQL beside it that does the same
// work, and prints what both cost. Clients and servers share the machine, so
// figures of different machines do not compare; ratios do, within reason.
//
// The benchmarks, selected by -run:
//
//	append  64 closed-loop clients, 300-byte texts, 1,000 conversations,
//	        every ack after fsync; fastpaca and PostgreSQL in turn
//	start   exec to the first acknowledged append: empty directory, after a
//	        million messages, and the same after SIGKILL
//	idle    processor time of a server that nobody talks to
//	memory  resident size while a million messages are loaded
//	tail    the newest 100 of a conversation of 100,000 and of one of 200
//
// and, of a cluster of three data nodes, a router and a control member, each a
// process:
//
//	cluster      closed-loop clients, 300-byte texts, 1,000 conversations, every
//	             ack after fsync at a quorum; in turn with three members of etcd
//	             that put the same bytes
//	openloop     the latency of 500 appends a second, in turn with etcd
//	failover     from SIGKILL of a data node until appends to its groups succeed
//	moves        500 appends a second to 256 groups of 10 MB in all, while a 4th
//	             and a 5th node join, replicas are evened out and the 1st node is
//	             drained and removed: latency, failed answers, what was lost
//	telemetry    the closed loop with everything that telemetry has, and with the
//	             SDK disabled, in turn: processor time per append over each other
//	clusteridle  processor time of each process when nobody talks to them
//	routerstart  exec of a router to its first acknowledged append; its memory
//
// of live streams, whose clients read the sequence of each frame, see to it that
// none is left out or repeated, and skip the rest:
//
//	delivery       500 appends a second to 1,000 conversations with a WebSocket
//	               each, on the same cluster: the time to the subscriber over the
//	               time to the acknowledgement
//	subscriptions  5,000 connections that nothing happens on, of WebSocket and of
//	               Server-Sent Events: memory and processor time of the router
//	fanout         a conversation that 1,000 WebSockets follow: frames per second
//	               with one core of the router
//	replay         conversations of 100,000 messages from the first on, over
//	               WebSocket and Server-Sent Events: messages with a second of
//	               the server's processor time
//
// and of the archive, with a PostgreSQL that holds it:
//
//	archive  append with and without an archive, and how soon it has caught up
//	trim     a server with 200,000 messages is given an archive and keeps 100 per
//	         conversation: rows per second beside \copy, the data directory after
//	         compaction, and all of it read back and compared byte for byte
//
// How long some of them take, about:
//
//	fastpaca-bench -run moves                                3 minutes
//	fastpaca-bench -run delivery                             1 minute
//	fastpaca-bench -run subscriptions                        2 minutes
//	fastpaca-bench -run fanout,replay -runs 1                1 minute
//	fastpaca-bench -run archive                              2 minutes
//	fastpaca-bench -run trim                                 3 minutes
//	fastpaca-bench -run trim -archive-messages 1000000       takes several GB of disk
//
// -check exits with 1 when a target was missed; -profile DIR leaves profiles of
// the servers in DIR. Processor time is read from /proc, so it runs on Linux
// only.
package main
