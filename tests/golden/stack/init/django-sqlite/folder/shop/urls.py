from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path


def users(request: HttpRequest) -> HttpResponse:
    User.objects.create_user(f"user-{User.objects.count() + 1}")
    return HttpResponse(f"{User.objects.count()} users")


urlpatterns = [path("users", users)]
