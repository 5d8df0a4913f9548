# Routers keep nothing: as many tasks of Fargate as the load asks for.

resource "aws_ecs_cluster" "routers" {
  name = "${var.name}-routers"
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  tls_volumes = var.tls == null ? [] : ["tls"]
  tls_router = { for key, value in {
    mountPoints = [for v in local.tls_volumes : { sourceVolume = v, containerPath = "/tls", readOnly = true }]
    dependsOn   = [for v in local.tls_volumes : { containerName = v, condition = "SUCCESS" }]
  } : key => value if length(value) > 0 }
  tls_containers = [for v in local.tls_volumes : {
    name                   = v
    image                  = var.tls.init_image
    essential              = false
    entryPoint             = ["sh", "-euc"]
    command                = ["umask 077; for part in ${join(" ", local.tls_parts)}; do printenv \"$part\" > /tls/$part.pem; done; chown -R 65532:65532 /tls"]
    secrets                = [for part in local.tls_parts : { name = part, valueFrom = "${var.tls.secret_arn}:${part}::" }]
    mountPoints            = [{ sourceVolume = v, containerPath = "/tls", readOnly = false }]
    readonlyRootFilesystem = true
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-region        = local.region
        awslogs-group         = aws_cloudwatch_log_group.cluster.name
        awslogs-stream-prefix = "router"
      }
    }
  }]
}

resource "aws_ecs_task_definition" "router" {
  family                   = "${var.name}-router"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.router_size.cpu
  memory                   = var.router_size.memory
  execution_role_arn       = aws_iam_role.router_start.arn
  tags                     = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }

  # Written before a router starts: it has no shell, and reads files.
  dynamic "volume" {
    for_each = local.tls_volumes
    content {
      name = volume.value
    }
  }

  container_definitions = jsonencode(concat(local.tls_containers, [merge(local.tls_router, {
    name                   = "router"
    image                  = var.image
    essential              = true
    command                = ["router", "--listen=0.0.0.0:${local.router_port}"]
    environment            = [for k, v in local.environment : { name = k, value = v }]
    secrets                = [{ name = "FASTPACA_TOKEN", valueFrom = local.token_secret_arn }]
    portMappings           = [{ containerPort = local.router_port, protocol = "tcp" }]
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    stopTimeout            = 60
    healthCheck = {
      command     = ["CMD", "/fastpaca", "health", "--url", "http://127.0.0.1:${local.router_port}/health/live"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-region        = local.region
        awslogs-group         = aws_cloudwatch_log_group.cluster.name
        awslogs-stream-prefix = "router"
      }
    }
  })]))
}

resource "aws_ecs_service" "router" {
  name                               = "${var.name}-router"
  cluster                            = aws_ecs_cluster.routers.id
  task_definition                    = aws_ecs_task_definition.router.arn
  launch_type                        = "FARGATE"
  desired_count                      = var.routers
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  # The groups of a new cluster are placed once its data nodes have booted.
  health_check_grace_period_seconds = 600
  propagate_tags                    = "SERVICE"
  tags                              = local.tags

  network_configuration {
    subnets         = [for az in local.zones : var.private_subnets[az]]
    security_groups = [aws_security_group.role["router"].id]
  }
  service_registries {
    registry_arn = aws_service_discovery_service.router.arn
  }
  load_balancer {
    target_group_arn = aws_lb_target_group.router.arn
    container_name   = "router"
    container_port   = local.router_port
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  lifecycle {
    ignore_changes = [desired_count] # the autoscaler's
  }

  depends_on = [aws_lb_listener.api, aws_iam_role_policy.router_start, aws_secretsmanager_secret_version.token]
}

resource "aws_appautoscaling_target" "router" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.routers.name}/${aws_ecs_service.router.name}"
  min_capacity       = var.routers
  max_capacity       = var.routers_max
  tags               = local.tags
}

resource "aws_appautoscaling_policy" "router_cpu" {
  name               = "${var.name}-router-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.router.service_namespace
  scalable_dimension = aws_appautoscaling_target.router.scalable_dimension
  resource_id        = aws_appautoscaling_target.router.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 30
    # Streams stay with their router: going down slowly breaks fewer of them.
    scale_in_cooldown = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_lb" "api" {
  name               = "${var.name}-api"
  load_balancer_type = "application"
  internal           = !var.public
  subnets            = var.load_balancer_subnets
  security_groups    = [aws_security_group.role["balancer"].id]
  # Streams are quiet between messages: heartbeats come every 15 to 30 s, and
  # one or two may be late.
  idle_timeout               = 300
  drop_invalid_header_fields = true
  tags                       = local.tags
}

resource "aws_lb_target_group" "router" {
  name                          = "${var.name}-router"
  vpc_id                        = var.vpc_id
  port                          = local.router_port
  protocol                      = "HTTP"
  target_type                   = "ip"
  deregistration_delay          = 30
  load_balancing_algorithm_type = "least_outstanding_requests"
  tags                          = local.tags

  health_check {
    path                = "/health/ready"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "api" {
  load_balancer_arn = aws_lb.api.arn
  port              = local.listener_port
  protocol          = var.certificate_arn == null ? "HTTP" : "HTTPS"
  certificate_arn   = var.certificate_arn
  ssl_policy        = var.certificate_arn == null ? null : "ELBSecurityPolicy-TLS13-1-2-2021-06"
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.router.arn
  }
}
