// Package phoenix encodes and decodes the frames of the Phoenix Channels wire
// protocol, serializer versions 1.0.0 and 2.0.0, as the npm package phoenix
// speaks it. It holds no state and knows no network: what frames mean is in
// router/socket.
package phoenix
