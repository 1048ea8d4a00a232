"""What modules do while a picture is drawn, beside a model or without one."""
