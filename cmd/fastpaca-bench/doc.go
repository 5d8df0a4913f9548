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
//	clusteridle  processor time of each process when nobody talks to them
//	routerstart  exec of a router to its first acknowledged append; its memory
//
// Processor time is read from /proc, so it runs on Linux only.
package main
