module fastpaca.example/agent

go 1.25.0

require github.com/fastpaca/fastpaca/sdk/go v0.0.0

replace github.com/fastpaca/fastpaca/sdk/go => ../../go
